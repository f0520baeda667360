"""Is a checkpoint what a recipe gives? The plan is merged in memory and compared, byte by byte.

Nothing is written and no more than some blocks are held. Where bytes differ it is said how far and
where: another dtype, the last bit of a rounding, or other weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, TensorSource
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.files.copied_files import pieces_of
from merge_ops.checkpoints.header import FLOAT_DTYPES, ITEM_SIZES
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.kernels.arithmetic import Arithmetic
from merge_ops.plans.plan import Plan
from merge_ops.plans.side_files import side_files
from merge_ops.progress import Progress
from merge_ops.stream.block_reader import read_values
from merge_ops.stream.device import open_device
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.stream import BlockStream

if TYPE_CHECKING:
    from numpy.typing import NDArray

Status = Literal["equal", "rounded", "differs", "missing", "other shape", "other kind"]
Verdict = Literal["identical", "same values", "rounding", "different"]

ROUNDING = 1
"""Units in the last place by which rounding a sum in another order, or on a GPU, may differ."""
VERDICTS: dict[Verdict, str] = {
    "identical": "is what the recipe gives, byte for byte",
    "same values": "has the values that the recipe gives; dtypes or other files differ",
    "rounding": f"is what the recipe gives up to rounding (at most {ROUNDING} unit in the last"
    " place): made by other arithmetic, such as a GPU's, or another release",
    "different": "is not what the recipe gives",
}


@dataclass(frozen=True)
class TensorCheck:
    """A tensor check compares one tensor with what was planned.

    `differing` counts entries, `largest` is the largest |difference| and `relative` its L2 norm
    over that of what was planned, in those blocks that differ. `units` is the largest difference in
    units of the last place of the dtype with fewer bits; None where the values cannot be compared.
    """

    name: str
    status: Status
    planned: str
    found: str
    count: int
    differing: int = 0
    largest: float = 0.0
    relative: float = 0.0
    units: int | None = 0

    @property
    def same_bytes(self) -> bool:
        """Return whether dtype and bytes are as planned."""
        return self.status == "equal" and self.planned == self.found


@dataclass(frozen=True)
class MergeCheck:
    """A merge check says how a checkpoint stands to one coefficient of a recipe.

    `tensors` has every planned tensor; `unplanned` are tensors that the recipe does not give;
    `files` those beside the weights that are missing or have other content.
    """

    coefficient: str
    tensors: tuple[TensorCheck, ...]
    unplanned: tuple[str, ...]
    files: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """Return what the checkpoint is."""
        if self.unplanned or any(each.status not in ("equal", "rounded") for each in self.tensors):
            return "different"
        if any(each.status == "rounded" for each in self.tensors):
            return "rounding"
        same = all(each.same_bytes for each in self.tensors) and not self.files
        return "identical" if same else "same values"

    @property
    def passed(self) -> bool:
        """Return whether the weights are those that the recipe gives, rounding aside."""
        return self.verdict != "different"

    @property
    def distance(self) -> float:
        """Return how far off the checkpoint is: the root of the mean square of `relative`."""
        squares = [each.relative**2 for each in self.tensors]
        return math.sqrt(math.fsum(squares) / max(1, len(squares)))

    def to_json(self) -> dict[str, Any]:
        """Return the check as plain data."""
        document = dataclasses.asdict(self)
        return {
            **document,
            "verdict": self.verdict,
            "meaning": VERDICTS[self.verdict],
            "passed": self.passed,
            "distance": self.distance,
        }


def check_merge(
    plan: Plan,
    checkpoint: Checkpoint,
    settings: StreamSettings | None = None,
    progress: Progress | None = None,
) -> list[MergeCheck]:
    """Merge a plan in memory and compare a checkpoint with it, for every coefficient.

    Returns a check for each, the nearest first. Raises what a merge raises.
    """
    settings = settings or StreamSettings()
    comparison = _Comparison(plan, checkpoint)
    BlockStream(plan, settings).run(comparison.take, progress)
    planned = {step.output.name for step in plan.steps}
    skipped = excluded(checkpoint)
    unplanned = [name for name in checkpoint.tensors if name not in planned | skipped.keys()]
    files = _other_files(plan, checkpoint)
    checks = [
        MergeCheck(each.id, tuple(comparison.checks(place)), tuple(unplanned), tuple(files))
        for place, each in enumerate(plan.coefficients)
    ]
    order: list[Verdict] = list(VERDICTS)
    return sorted(checks, key=lambda each: (order.index(each.verdict), each.distance))


@dataclass
class _Sums:
    """What was seen of one tensor of one coefficient."""

    differing: int = 0
    largest: float = 0.0
    squares: float = 0.0
    planned: float = 0.0
    units: int = 0
    comparable: bool = True


@dataclass
class _Comparison:
    """Takes the blocks of a merge in order, and reads the same elements of the checkpoint."""

    plan: Plan
    checkpoint: Checkpoint
    at: dict[int, int] = field(default_factory=dict[int, int])
    sums: dict[tuple[int, int], _Sums] = field(default_factory=dict[tuple[int, int], _Sums])

    def __post_init__(self) -> None:
        outputs = [step.output for step in self.plan.steps]
        self.outputs = outputs
        self.found = [find_source(self.checkpoint, each.name) for each in outputs]
        self.arithmetic = open_device("cpu").arithmetic

    def take(self, tensor: int, blocks: Sequence[NDArray[np.uint8]]) -> None:
        """Compare one block of every coefficient, each the flat bytes of the same elements."""
        output, found = self.outputs[tensor], self.found[tensor]
        start = self.at.get(tensor, 0)
        count = len(blocks[0]) // ITEM_SIZES[output.dtype]
        self.at[tensor] = start + count
        if found is None or found.shape != output.shape:
            return
        there = _stored_bytes(found, start, count)
        for coefficient, block in enumerate(blocks):
            sums = self.sums.setdefault((coefficient, tensor), _Sums())
            same = there is not None and found.dtype == output.dtype
            if same and np.array_equal(there, block):  # type: ignore[arg-type]
                continue
            if output.dtype not in FLOAT_DTYPES or found.dtype not in FLOAT_DTYPES:
                sums.comparable = sums.comparable and found.dtype == output.dtype
                sums.differing += count
                continue
            _compare(sums, self.arithmetic, (block, output.dtype), (found, start, count))

    def checks(self, coefficient: int) -> list[TensorCheck]:
        """What came of one coefficient, tensor by tensor."""
        return [
            _check(output, found, self.sums.get((coefficient, index), _Sums()))
            for index, (output, found) in enumerate(zip(self.outputs, self.found, strict=True))
        ]


def _stored_bytes(found: TensorSource, start: int, count: int) -> NDArray[np.uint8] | None:
    """The bytes of elements as they are stored; None where they are computed while they are read.

    Raises CheckpointError where the file cannot be read.
    """
    if not isinstance(found, Stored):
        return None
    size = ITEM_SIZES[found.dtype]
    raw = bytearray(count * size)
    entry = found.entry
    found.checkpoint.source.read_into(entry.file, entry.offset + start * size, memoryview(raw))
    return np.frombuffer(raw, dtype=np.uint8)


def _compare(
    sums: _Sums,
    arithmetic: Arithmetic,
    planned: tuple[NDArray[np.uint8], str],
    found: tuple[TensorSource, int, int],
) -> None:
    """Add the differences of a block of floats, in the dtype with fewer bits."""
    block, code = planned
    source, start, count = found
    wanted = arithmetic.empty((count,))
    arithmetic.widen(np.ascontiguousarray(block), code, None, wanted, checked=False)
    there = arithmetic.from_host(read_values(source, start, count).numpy())
    narrow = code if ITEM_SIZES[code] < ITEM_SIZES[source.dtype] else source.dtype
    with np.errstate(all="ignore"):
        rounded = [
            arithmetic.rounded(arithmetic.copy(each), None, narrow)[0] for each in (wanted, there)
        ]
        units = _units(rounded[0], rounded[1], narrow)
        differs = units != 0
        change: Any = np.where(
            differs, arithmetic.on_host(there) - arithmetic.on_host(wanted), np.float32(0)
        ).astype(np.float64)
        host: Any = arithmetic.on_host(wanted).astype(np.float64)
        sums.differing += int(np.count_nonzero(differs))
        sums.largest = max(sums.largest, float(np.abs(change).max(initial=0.0)))
        sums.squares += float(np.dot(change, change))
        sums.planned += float(np.dot(host, host))
        sums.units = max(sums.units, int(units.max(initial=0)))


def _units(first: NDArray[np.uint8], second: NDArray[np.uint8], code: str) -> NDArray[np.int64]:
    """How many representable numbers lie between two blocks' entries; −0 and 0 are one."""
    kind: Any = {2: np.int16, 4: np.int32, 8: np.int64}[ITEM_SIZES[code]]
    ordered: list[NDArray[np.int64]] = []
    for each in (first, second):
        signed = each.view(kind).astype(np.int64)
        low = np.int64(np.iinfo(kind).min)
        ordered.append(np.where(signed < 0, low - signed, signed))
    return np.abs(ordered[0] - ordered[1])


def _check(output: OutputTensor, found: TensorSource | None, sums: _Sums) -> TensorCheck:
    planned, count = f"{output.dtype} {list(output.shape)}", math.prod(output.shape)
    if found is None:
        return TensorCheck(output.name, "missing", planned, "nothing", count, count, units=None)
    there = f"{found.dtype} {list(found.shape)}"
    if found.shape != output.shape:
        status: Status = "other shape"
    elif not sums.comparable:
        status = "other kind"
    elif not sums.differing:
        return TensorCheck(output.name, "equal", planned, there, count)
    else:
        small = output.dtype in FLOAT_DTYPES and sums.units <= ROUNDING
        status = "rounded" if small else "differs"
    relative = math.sqrt(sums.squares / sums.planned) if sums.planned else math.inf
    if status in ("other shape", "other kind"):
        return TensorCheck(output.name, status, planned, there, count, count, units=None)
    numbers = (sums.differing, sums.largest, relative if sums.squares else 0.0, sums.units)
    return TensorCheck(output.name, status, planned, there, count, *numbers)


def _other_files(plan: Plan, checkpoint: Checkpoint) -> list[str]:
    """The files beside the weights that the recipe gives and the checkpoint has not, or others."""
    found: list[str] = []
    for name, data in side_files(plan).items():
        wanted = b"".join(bytes(piece) for piece in pieces_of(data))
        if name not in checkpoint.files:
            found.append(f"{name} is missing")
            continue
        there = read_file(checkpoint.source, name, 0, checkpoint.files[name])
        if there != wanted and not (name.endswith(".json") and _same_json(there, wanted)):
            found.append(f"{name} has other content")
    return found


def _same_json(first: bytes, second: bytes) -> bool:
    try:
        return json.loads(first) == json.loads(second)
    except ValueError:
        return False
