"""The files of a step's result, known before the step is merged."""

from __future__ import annotations

from collections.abc import Mapping

from merge_ops.checkpoints.checkpoint import TensorSource
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.files.copied_files import part_of
from merge_ops.plans.plan import Plan
from merge_ops.plans.side_files import side_files
from merge_ops.plans.steps import Copy, Merge

PASSTHROUGH = "passthrough"


class ResultFiles:
    """Result files are a step's result as a byte source, made before the step is merged.

    The files beside the weights can be read at once, the weights once the step is merged. `plan`
    is the step's, so that a card can tell what the result is made of.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._location = f"the result of '{plan.recipe.name}'"
        self._files = side_files(plan)
        self._copied = {
            step.output.name: step.planned.source
            for step in plan.steps
            if isinstance(step.planned, Copy)
        }
        self._multiplied = {
            step.output.name: step.planned.inputs[0]
            for step in plan.steps
            if isinstance(step.planned, Merge) and plan.method.name == PASSTHROUGH
        }
        self._written: ByteSource | None = None

    @property
    def location(self) -> str:
        """Return the place that messages name."""
        return self._location if self._written is None else self._written.location

    def sizes(self) -> Mapping[str, int]:
        """Return the sizes of the side files."""
        return {name: len(data) for name, data in self._files.items()}

    def copied_from(self, name: str) -> TensorSource | None:
        """Return what a tensor of the result is a copy of, or None where it is merged."""
        return self._copied.get(name)

    def multiple_of(self, name: str) -> TensorSource | None:
        """Return what a tensor of the result is a copy or a multiple of, or None where of several.

        So it is zero where that is.
        """
        return self._copied.get(name) or self._multiplied.get(name)

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the bytes of `file` from `offset`.

        Raises OSError for weights that are not merged yet.
        """
        if file in self._files:
            buffer[:] = part_of(self._files[file], offset, len(buffer))
        elif self._written is None:
            raise OSError(f"{self._location} holds no {file} yet")
        else:
            self._written.read_into(file, offset, buffer)

    def lie_in(self, written: ByteSource) -> None:
        """Read the weights from `written` from now on, where the merge has written them."""
        self._written = written
