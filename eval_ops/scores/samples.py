"""One answer to one item, and the file that holds all answers: a row each, in Parquet."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from eval_ops.errors import ScoresError


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


def answers_from_parquet(data: bytes) -> Iterable[tuple[str, str, str, float, str]]:
    """Return benchmark, split, item, value and group of each sample, and nothing else of them."""
    names = ["benchmark", "split", "item", "value", "group"]
    table = _table(data, names)
    columns = [
        table.column(name).to_pylist() if name in table.column_names else [""] * table.num_rows
        for name in names
    ]
    return zip(*columns, strict=True)


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
        return table.cast(pa.schema([_schema().field(name) for name in read]))
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise ScoresError(f"the samples cannot be read: {error}") from None


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
