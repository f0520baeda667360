"""One answer to one item, and the file that holds all answers: a row each, in Parquet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import ScoresError

Part = tuple[str, str]
"""A benchmark and one split of its items."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer. `value` is what the metric gave it: 1.0 or 0.0 for an accuracy.

    For multiple choice `choice` and `answer` are indices and `loglikelihoods` holds one sum of
    token log-probabilities (natural logarithm) a choice; otherwise None, None and (). `group` names
    what items share, a passage: they are no independent evidence. For generation `text` is what the
    model wrote and `length` its tokens.
    """

    benchmark: str
    split: str
    item: str
    value: float
    choice: int | None = None
    answer: int | None = None
    loglikelihoods: tuple[float, ...] = ()
    group: str = ""
    text: str | None = None
    length: int | None = None

    @property
    def correct(self) -> bool:
        """Whether the metric gave full marks."""
        return self.value == 1.0


def samples_to_parquet(samples: Sequence[Sample]) -> bytes:
    """Write samples as one Parquet file: a row an answer, the columns of `Sample`."""
    pa, pq = _arrow()
    columns = {
        name: [getattr(sample, name) for sample in samples] for name in Sample.__dataclass_fields__
    }
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_schema()), sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def samples_from_parquet(data: bytes) -> tuple[Sample, ...]:
    """Read what `samples_to_parquet` wrote, of format 1 too; ScoresError when it is another."""
    rows: list[dict[str, Any]] = _table(data, list(Sample.__dataclass_fields__)).to_pylist()
    for row in rows:
        row["loglikelihoods"] = tuple(row["loglikelihoods"])
    return tuple(Sample(**row) for row in rows)


class Items:
    """The items of a file of samples, row by row; files that have the same ones share this object.

    `of` maps benchmark and split to the items there and their rows, `groups` to the groups of
    those items that have one. An item that is there twice counts once, with its last row.
    """

    def __init__(self, named: Iterable[tuple[str, str, str, str]]) -> None:
        """Sort benchmark, split, item and group of each row."""
        rows: dict[Part, dict[str, int]] = {}
        self.groups: dict[Part, dict[str, str]] = {}
        for row, (benchmark, split, item, group) in enumerate(named):
            rows.setdefault((benchmark, split), {})[item] = row
            if group:
                self.groups.setdefault((benchmark, split), {})[item] = group
        self.of = {
            part: (tuple(places), np.fromiter(places.values(), np.intp, len(places)))
            for part, places in rows.items()
        }

    @cached_property
    def counts(self) -> dict[Part, int]:
        """How many items each benchmark and split has."""
        return {part: len(items) for part, (items, _) in self.of.items()}


class Answers(NamedTuple):
    """The value of each row of a file of samples, shape [rows], and whose rows these are."""

    items: Items
    values: NDArray[np.float64]

    @property
    def finite(self) -> bool:
        """Whether no answer is worth NaN or infinity."""
        return bool(np.isfinite(self.values).all())

    def table(self, benchmark: str, split: str) -> dict[str, float]:
        """Return item → value of a benchmark and split; KeyError where there are none."""
        items, rows = self.items.of[benchmark, split]
        return dict(zip(items, self.values[rows].tolist(), strict=True))


def answers_of(samples: Sequence[Sample]) -> Answers:
    """Return the answers of samples that are at hand."""
    items = Items((s.benchmark, s.split, s.item, s.group) for s in samples)
    return Answers(items, np.array([sample.value for sample in samples], np.float64))


def answers_from_parquet(data: bytes) -> Answers:
    """Return whose rows a file of samples has and what each is worth, and nothing else of them.

    Candidates answer the same items: these become Python's objects once for all files whose columns
    say the same. ScoresError when it is another file, or when an item has no value.
    """
    table = _table(data, [*NAMING, "value"])
    column = table.column("value")
    if column.null_count:
        raise ScoresError(f"the samples cannot be read: {column.null_count} have no value")
    return Answers(_items_of(table.drop_columns("value")), _floats(column))


def _floats(column: Any) -> NDArray[np.float64]:
    """The numbers of an arrow column without gaps; arrow's own way to numpy imports pandas."""
    parts = [
        np.frombuffer(each.buffers()[1], np.float64, len(each), 8 * each.offset)
        for each in column.chunks
        if len(each)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


NAMING = ("benchmark", "split", "item", "group")
"""The columns that say which item a row is about."""
MOST_SEEN = 8
"""Files whose items are kept, the last ones: as many suites are compared at once."""

_seen: list[tuple[Any, Items]] = []


def _items_of(naming: Any) -> Items:
    """The items of the naming columns, an arrow table: known ones where an equal table was seen."""
    for known, items in _seen:
        if known.equals(naming):
            return items
    try:
        columns = [
            naming.column(name).to_pylist()
            if name in naming.column_names
            else [""] * naming.num_rows
            for name in NAMING
        ]
    except UnicodeDecodeError as error:
        raise ScoresError(f"the samples cannot be read: {error}") from None
    items = Items(zip(*columns, strict=True))
    _seen[:] = [(naming, items), *_seen[: MOST_SEEN - 1]]
    return items


NEW_COLUMNS = frozenset({"group", "text", "length"})
"""Columns that a file of format 1 has not."""


def _table(data: bytes, names: Sequence[str]) -> Any:
    """The named columns of a file of samples, as an arrow table."""
    pa, pq = _arrow()
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        earlier = NEW_COLUMNS.isdisjoint(file.schema_arrow.names)
        read = [name for name in names if not (earlier and name in NEW_COLUMNS)]
        table = file.read(read, use_threads=False)
        wanted = _schema_of(tuple(read))
        return table if table.schema.equals(wanted) else table.cast(wanted)
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise ScoresError(f"the samples cannot be read: {error}") from None


@cache
def _schema_of(names: tuple[str, ...]) -> Any:
    pa, _ = _arrow()
    return pa.schema([_schema().field(name) for name in names])


@cache
def _schema() -> Any:
    pa, _ = _arrow()
    return pa.schema(
        [
            ("benchmark", pa.string()),
            ("split", pa.string()),
            ("item", pa.string()),
            ("value", pa.float64()),
            ("choice", pa.int32()),
            ("answer", pa.int32()),
            ("loglikelihoods", pa.list_(pa.float64())),
            ("group", pa.string()),
            ("text", pa.string()),
            ("length", pa.int32()),
        ]
    )


def _arrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet module, which have no types."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]

    return pyarrow, pyarrow.parquet
