"""One answer to one item, and the file that holds all answers: a row each, in Parquet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
from blake3 import blake3
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
    names = list(Sample.__dataclass_fields__)
    rows: list[dict[str, Any]] = _table(_opened(data), names).to_pylist()
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

    Candidates answer the same items, and their files have the same bytes in the columns that say
    which: these are decoded once (`_items_key`). ScoresError when it is another file, or when an
    item has no value.
    """
    file = _opened(data)
    key = _items_key(file.metadata, data)
    items = _seen.get(key) if key is not None else None
    if items is None:
        table = _table(file, [*NAMING, "value"])
        columns = [
            table.column(name).to_pylist() if name in table.column_names else [""] * table.num_rows
            for name in NAMING
        ]
        items = Items(zip(*columns, strict=True))
        if key is not None:
            if len(_seen) >= MOST_SEEN:
                _seen.clear()
            _seen[key] = items
    else:
        table = _table(file, ["value"])
    column = table.column("value")
    if column.null_count:
        raise ScoresError(f"the samples cannot be read: {column.null_count} have no value")
    return Answers(items, column.to_numpy())


NAMING = ("benchmark", "split", "item", "group")
"""The columns that say which item a row is about."""
MOST_SEEN = 16
"""Kinds of files whose items are kept: suites, by the versions of what wrote the files."""

_seen: dict[bytes, Items] = {}


def _items_key(footer: Any, data: bytes) -> bytes | None:
    """Return a digest of all that the naming columns are decoded from; None of an unusual file.

    That is their bytes in the file, and what the footer says of them: types, codec, counts, where
    in those bytes a dictionary and the values begin. Equal ones decode to equal columns.
    """
    schema = footer.schema
    names: list[str] = schema.names
    if footer.num_row_groups != 1 or not set(NAMING) <= set(names):
        return None
    group, view, hasher = footer.row_group(0), memoryview(data), blake3()
    told: list[object] = [footer.num_rows]
    for name in NAMING:
        place = names.index(name)
        leaf, chunk = schema.column(place), group.column(place)
        values = chunk.data_page_offset
        start = chunk.dictionary_page_offset if chunk.has_dictionary_page else values
        end = start + chunk.total_compressed_size
        if leaf.path != name or not 0 <= start <= values <= end <= len(data):
            return None
        told += (
            chunk.physical_type, chunk.compression, chunk.num_values, leaf.max_definition_level,
            values - start, end - start,
        )  # fmt: skip
        hasher.update(view[start:end])
    hasher.update(repr(told).encode())
    return hasher.digest()


NEW_COLUMNS = frozenset({"group", "text", "length"})
"""Columns that a file of format 1 has not."""


def _opened(data: bytes) -> Any:
    """A file of samples, of which the footer is read."""
    pa, pq = _arrow()
    try:
        return pq.ParquetFile(pa.BufferReader(data))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ScoresError(f"the samples cannot be read: {error}") from None


def _table(file: Any, names: Sequence[str]) -> Any:
    """The named columns of a file of samples, as an arrow table."""
    pa, _ = _arrow()
    try:
        read = list(names)
        if not NEW_COLUMNS.isdisjoint(names) and NEW_COLUMNS.isdisjoint(file.schema_arrow.names):
            read = [name for name in names if name not in NEW_COLUMNS]
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
