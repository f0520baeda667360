"""The two arithmetics that merges compute with, for tests that hold them to the same bits."""

import hashlib
from contextlib import contextmanager

import numpy as np
import torch

from merge_ops.kernels.library import library
from merge_ops.kernels.loops import Loops
from merge_ops.kernels.torch_arithmetic import TorchArithmetic
from merge_ops.stream.device import Device
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.stream import BlockStream

TORCH = TorchArithmetic()
COMPILED = library()
assert COMPILED is not None, "`make install` compiles the loops"
LOOPS = Loops(COMPILED)
ARITHMETICS = {"loops": LOOPS, "torch": TORCH}

_chosen = [TORCH]


def current():
    """What methods are applied with where a test does not say: see the fixture `arithmetic`."""
    return _chosen[-1]


@contextmanager
def using(name):
    """Apply methods with one of them."""
    _chosen.append(ARITHMETICS[name])
    try:
        yield current()
    finally:
        _chosen.pop()


def bits(values):
    """The bytes of values or of an array, flat: what equal bits are compared by."""
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8)


def same_bits(first, second):
    return np.array_equal(bits(first), bits(second))


def streamed(plan, arithmetic, **settings):
    """The digest of all tensors that the stream makes with one arithmetic, by coefficient."""
    digests = [hashlib.sha256() for _ in plan.coefficients]

    def take(_, blocks):
        for digest, block in zip(digests, blocks, strict=True):
            digest.update(block)

    device = Device(arithmetic, with_torch=True)
    BlockStream(plan, StreamSettings(device="cpu", **settings), device).run(take)
    names = [each.id for each in plan.coefficients]
    return {name: digest.hexdigest() for name, digest in zip(names, digests, strict=True)}


def as_tensors(values):
    """Values of either arithmetic as tensors, to compare them."""
    return [torch.as_tensor(each) for each in values]
