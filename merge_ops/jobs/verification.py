"""Is a folder really a checkpoint? All tensors, all finite, loads, and one forward pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.header import FLOAT_DTYPES, ITEM_SIZES, TensorEntry
from merge_ops.checkpoints.layout import index_file
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.children import ask_of_model
from merge_ops.errors import CheckpointError, ChildError
from merge_ops.plans.plan import Plan
from merge_ops.stream.rounding import torch_dtype

BLOCK = 1 << 20
MOST_NAMED = 5
_OF_WEIGHTS = (".safetensors", ".safetensors.index.json", ".bin", ".pt", ".pth", ".gguf")


@dataclass(frozen=True)
class Verification:
    """A verification holds counts of tensors and parameters, and every problem in words."""

    tensors: int
    parameters: int
    loaded_as: str
    logits_shape: tuple[int, ...]
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Return whether there is no problem."""
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        """Return the verification as plain data."""
        return {**dataclasses.asdict(self), "passed": self.passed}


def verify_checkpoint(
    folder: Path, expected: Collection[str] | None = None, called: str | None = None
) -> Verification:
    """Check a checkpoint folder and return what was found.

    `expected` are the tensor names that it must have, no more, no fewer. `called` is what messages
    call the checkpoint. Problems are returned, not
    raised: a check reports them all. No remote code is run.
    """
    source = FolderSource(folder)
    try:
        checkpoint = open_checkpoint(folder.name, source)
    except CheckpointError as error:
        return Verification(0, 0, "", (), (str(error),))
    problems = [*_name_problems(checkpoint, expected), *_value_problems(checkpoint)]
    loaded_as, shape = "", ()
    if not problems:
        loaded_as, shape, problems = _load(folder, called or folder.name, len(checkpoint.tensors))
    source.close()
    parameters = sum(entry.count for entry in checkpoint.tensors.values())
    return Verification(len(checkpoint.tensors), parameters, loaded_as, shape, tuple(problems))


def loading_problems(folder: Path, tensors: int, called: str) -> list[str]:
    """Return what is wrong when a checkpoint is loaded and run once, as `verify_checkpoint` does.

    No tensor is read here: that all are there and finite is known otherwise. `tensors` counts them.
    """
    return _load(folder, called, tensors)[2]


def check_written(plan: Plan, folder: Path) -> None:
    """Compare a written checkpoint with its plan: names, dtypes, shapes, and the lengths of files.

    Raises CheckpointError that names what is not as planned.
    """
    source = FolderSource(folder)
    try:
        if _headers_are_planned(plan, source):
            return
        written = open_checkpoint(folder.name, source)
    finally:
        source.close()
    wanted = {step.output.name: (step.output.dtype, step.output.shape) for step in plan.steps}
    found = {name: (entry.dtype, entry.shape) for name, entry in written.tensors.items()}
    wrong = sorted(name for name in {**wanted, **found} if wanted.get(name) != found.get(name))
    if wrong:
        told = [
            f"'{name}' is {found.get(name, 'missing')}, planned: {wanted.get(name, 'none')}"
            for name in wrong[:MOST_NAMED]
        ]
        rest = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise CheckpointError(
            f"{folder}: what was written is not what was planned: {'; '.join(told)}{rest}. Nothing"
            " was published; this is a fault of Ronghe or of the disk, please report it"
        )


def _headers_are_planned(plan: Plan, source: FolderSource) -> bool:
    """Whether the folder has just the planned weights, with the planned headers to the byte."""
    sizes = {name: size for name, size in source.sizes().items() if name.endswith(_OF_WEIGHTS)}
    index = {name: len(data) for name, data in index_file(plan.shards).items()}
    return sizes == {**{each.file: each.size for each in plan.shards}, **index} and all(
        read_file(source, each.file, 0, len(each.header)) == each.header for each in plan.shards
    )


def _name_problems(checkpoint: Checkpoint, expected: Collection[str] | None) -> Iterator[str]:
    if expected is None:
        return
    for name in sorted(set(expected) - set(checkpoint.tensors)):
        yield f"tensor '{name}' is missing"
    for name in sorted(set(checkpoint.tensors) - set(expected)):
        yield f"tensor '{name}' was not planned"


def _value_problems(checkpoint: Checkpoint) -> Iterator[str]:
    for name, entry in checkpoint.tensors.items():
        if entry.dtype in FLOAT_DTYPES and not _finite(checkpoint, entry):
            yield f"tensor '{name}' holds NaN or infinity"


def _finite(checkpoint: Checkpoint, entry: TensorEntry) -> bool:
    import torch

    size = ITEM_SIZES[entry.dtype]
    for start in range(0, entry.count, BLOCK):
        raw = bytearray(min(BLOCK, entry.count - start) * size)
        checkpoint.source.read_into(entry.file, entry.offset + start * size, memoryview(raw))
        values = torch.frombuffer(raw, dtype=torch_dtype(entry.dtype))
        if not math.isfinite(float(values.sum())) and not bool(values.isfinite().all()):
            return False
    return True


def _load(folder: Path, name: str, tensors: int) -> tuple[str, tuple[int, ...], list[str]]:
    """Load with transformers and run one forward pass, in the child that runs models."""
    doing = f"loads checkpoint {name} and runs it"
    try:
        request = {"tensors": tensors}
        found = ask_of_model("merge_ops.jobs.forward_child", folder, request, doing)
    except ChildError as error:
        return "", (), [str(error)]
    shape = tuple(int(each) for each in found["shape"])
    return str(found["loaded_as"]), shape, [str(each) for each in found["problems"]]
