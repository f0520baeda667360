"""Rows of a file of items: JSON lines, CSV or Parquet, each as a mapping with its place.

The bytes come from the one bounded reader of strangers' files. A CSV's values are all texts.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

from eval_ops.errors import ItemsError

FORMS = (".jsonl", ".json", ".csv", ".parquet")
"""How the name of a file of items may end; others are read as JSON lines, as they always were."""
MOST_ROWS = 1_000_000
MOST_TABLE = 512_000_000
"""Bytes of a Parquet file's columns once they are unpacked."""
MOST_FIELD = 4_000_000
"""Characters of one field of a CSV."""


class FileReader(Protocol):
    """A file reader reads files that strangers may have written, all of them within bounds."""

    def items(self, path: Path) -> bytes:
        """Return the bytes of a file of items. Raises OSError, FileNotFoundError among it."""
        ...

    def value(self, text: bytes) -> object:
        """Return the value of one line of JSON. Raises ValueError and nothing else."""
        ...

    def digest(self, path: Path) -> str:
        """Return the blake3 of a file of any size. Raises OSError."""
        ...


class Row(NamedTuple):
    """One row: where it stands (`line 3`), its values by column, or what is wrong with it."""

    place: str
    values: Mapping[str, Any]
    fault: str = ""


def read_bytes(path: Path, reader: FileReader) -> bytes:
    """Return the bytes of a file of items. Raises ItemsError."""
    try:
        return reader.items(path)
    except FileNotFoundError:
        raise ItemsError(
            str(path), ["the items file does not exist; make it, or correct `items` in the suite"]
        ) from None
    except OSError as error:
        raise ItemsError(str(path), [str(error)]) from error


def read_rows(path: Path, data: bytes, reader: FileReader) -> Iterator[Row]:
    """Yield the rows of a file's bytes; its name says what form it has. Raises ItemsError."""
    form = path.suffix.lower()
    if form == ".parquet":
        yield from _parquet_rows(path, data)
        return
    try:
        text = data.decode("utf-8-sig" if form == ".csv" else "utf-8")
    except UnicodeDecodeError as error:
        raise ItemsError(str(path), [f"is not UTF-8 text (byte {error.start})"]) from None
    yield from _csv_rows(path, text) if form == ".csv" else _json_rows(data, reader)


def _json_rows(data: bytes, reader: FileReader) -> Iterator[Row]:
    for number, line in enumerate(data.split(b"\n"), start=1):
        place = f"line {number}"
        if not line.strip():
            continue
        try:
            value = reader.value(line)
        except ValueError as error:
            yield Row(place, {}, f"{place} is not valid JSON: {error}")
            continue
        if isinstance(value, dict):
            yield Row(place, cast("dict[str, Any]", value))
        else:
            yield Row(place, {}, f"{place} is a {type(value).__name__}; it must be a JSON object")


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    before = csv.field_size_limit(MOST_FIELD)
    try:
        lines = csv.reader(io.StringIO(text, newline=""), strict=True)
        header = next(lines, list[str]())
        twice = sorted({name for name in header if header.count(name) > 1})
        if twice or not header:
            problem = f"has the column '{twice[0]}' twice" if twice else "holds no header"
            raise ItemsError(str(path), [problem])
        for number, fields in enumerate(lines, start=1):
            place = f"row {number}"
            if len(fields) != len(header):
                there = f"{len(fields)} fields where the header names {len(header)}"
                yield Row(place, {}, f"{place} has {there}")
            else:
                yield Row(place, dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise ItemsError(str(path), [f"is not valid CSV: {error}"]) from error
    finally:
        csv.field_size_limit(before)


def _parquet_rows(path: Path, data: bytes) -> Iterator[Row]:
    import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]

    arrow: Any = pa
    try:
        file: Any = cast("Any", pq).ParquetFile(arrow.BufferReader(data))
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        if file.metadata.num_rows > MOST_ROWS or unpacked > MOST_TABLE:
            most = f"{MOST_ROWS} rows and {MOST_TABLE} bytes"
            raise ItemsError(str(path), [f"holds more than {most}, which are the most read"])
        number = 0
        for batch in file.iter_batches(batch_size=4096, use_threads=False):
            for values in batch.to_pylist():
                number += 1
                yield Row(f"row {number}", values)
    except (arrow.ArrowException, ValueError, OSError, KeyError) as error:
        raise ItemsError(str(path), [f"is not a Parquet file that can be read: {error}"]) from None
