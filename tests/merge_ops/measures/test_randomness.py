"""Masks depend on (seed, tensor, expert, element) and on nothing else."""

import numpy as np
import pytest
import torch

from merge_ops.kernels.torch_masks import LOWER, UPPER, words_of
from merge_ops.measures.randomness import stream_key, threshold_of
from tests.merges import philox
from tests.merges.arithmetics import current

pytestmark = pytest.mark.usefixtures("arithmetic")

CPU = torch.device("cpu")
KEY = stream_key(42, "model.layers.0.mlp.up_proj.weight", "herbs")


def keep_mask(key, start, count, density):
    """1 where an element is kept, 0 elsewhere."""
    ones = np.ones(count, dtype=np.float32)
    return np.asarray(current().keep_random(key, start, ones, threshold_of(density)))


def test_known_bits():
    # Philox4x64-10 known answer (Random123's kat_vectors): counter 0, key 0.
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    for drawn in (philox.words((0, 0), 0, 0, 16), words_of((0, 0), UPPER, 0, 16, CPU).numpy()):
        assert [int(word) for word in drawn.astype(np.uint16).view(np.uint64)] == expected


@pytest.mark.parametrize(("start", "count"), [(0, 64), (5, 1001), (65_536, 4096), (2**33 + 3, 77)])
def test_torch_makes_the_same_bits_as_numpy(start, count):
    for stream in (UPPER, LOWER):
        ours = words_of(KEY, stream, start, count, CPU).numpy()
        assert np.array_equal(ours, philox.words(KEY, stream, start, count).astype(np.int64))


@pytest.mark.parametrize("density", [0.3, 0.5, 0.9999, 2**-20])
def test_a_number_has_32_bits(density):
    """32-bit numbers are compared with the chance, though they are rarely drawn whole."""
    start, count = 5, 300_000
    assert np.any(philox.words(KEY, UPPER, start, count) == round(density * 2**32) >> 16)
    expected = philox.mask(KEY, start, count, density)
    assert np.array_equal(keep_mask(KEY, start, count, density), expected)


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_blocks_do_not_matter(block):
    whole = keep_mask(KEY, 0, 1000, 0.3)
    parts = [
        keep_mask(KEY, start, min(block, 1000 - start), 0.3) for start in range(0, 1000, block)
    ]
    assert np.array_equal(np.concatenate(parts), whole)


def test_seed_tensor_and_expert_each_change_the_mask():
    def mask(*key):
        return keep_mask(stream_key(*key), 0, 256, 0.5)

    reference = mask(1, "a", "b")
    for other in ((2, "a", "b"), (1, "c", "b"), (1, "a", "c")):
        assert not np.array_equal(mask(*other), reference)


@pytest.mark.parametrize("density", [0.01, 0.3, 0.9])
def test_the_share_kept_is_the_density(density):
    n = 400_000
    kept = float(keep_mask(KEY, 0, n, density).mean(dtype=np.float64))
    assert abs(kept - density) < 5 * (density * (1 - density) / n) ** 0.5


def test_a_smaller_density_keeps_a_subset():
    few, many = keep_mask(KEY, 0, 5000, 0.2), keep_mask(KEY, 0, 5000, 0.6)
    assert bool((few <= many).all())
