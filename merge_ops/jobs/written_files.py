"""Is what was written what was planned? Told from the headers of the files alone."""

from __future__ import annotations

from pathlib import Path

from merge_ops.checkpoints.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError
from merge_ops.plans.plan import Plan

MOST_NAMED = 5


def check_written(plan: Plan, folder: Path) -> None:
    """Compare a written checkpoint with its plan: names, dtypes, shapes, and the lengths of files.

    Raises CheckpointError that names what is not as planned.
    """
    source = FolderSource(folder)
    written = open_checkpoint(folder.name, source)
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
