"""A header by itself: what is allowed up to its limits, and each fault one step beyond."""

import json
import re
from typing import Any

import pytest

from merge_ops.checkpoints.header import (
    ITEM_SIZES,
    MAX_DIMENSIONS,
    MAX_HEADER,
    TensorEntry,
    read_header,
)
from merge_ops.errors import CheckpointError

Table = dict[str, Any]


def entry(dtype: Any = "F32", shape: Any = (2, 3), begin: Any = 0, end: Any = 24) -> Table:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def read(table: object, data: int, size: int | None = None) -> dict[str, TensorEntry]:
    """Read a file of this header and `data` bytes; `size` is what the file claims to be."""
    text = json.dumps(table).encode()
    content = len(text).to_bytes(8, "little") + text
    return read_header(
        "the file",
        "model.safetensors",
        len(content) + data if size is None else size,
        lambda offset, length: content[offset : offset + length],
    )


def test_entries_say_where_tensors_lie() -> None:
    table = {
        "__metadata__": {"format": "pt"},
        "b": entry(begin=4, end=28),
        "a": entry("U8", (4,), 0, 4),
    }
    start = 8 + len(json.dumps(table))
    assert read(table, 28) == {
        "b": TensorEntry("F32", (2, 3), "model.safetensors", start + 4, 24),
        "a": TensorEntry("U8", (4,), "model.safetensors", start, 4),
    }
    assert [found.count for found in read(table, 28).values()] == [6, 4]


def test_scalars_empty_tensors_and_no_tensors_are_whole_files() -> None:
    assert read({}, 0) == {}
    assert read({"s": entry("F64", (), 0, 8)}, 8)["s"].count == 1
    empty = {"none": entry("F16", (0, 5), 8, 8), "s": entry("F64", (), 0, 8)}
    assert read(empty, 8)["none"].nbytes == 0
    deep = {"deep": entry("I8", [1] * MAX_DIMENSIONS, 0, 1)}
    assert read(deep, 1)["deep"].shape == (1,) * MAX_DIMENSIONS


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"shape": (2, -3)}, 24),
        ({"shape": (2, True), "end": 8}, 8),
        ({"shape": (2.0, 3)}, 24),
        ({"shape": [1] * (MAX_DIMENSIONS + 1), "end": 4}, 4),
        ({"shape": (1 << 63, 0), "end": 0}, 0),
        ({"begin": -1}, 24),
        ({"end": 24.0}, 24),
        ({"end": 1 << 63}, 24),
        ({"dtype": 32}, 24),
    ],
)
def test_entries_that_no_file_can_have(changes: Table, data: int) -> None:
    with pytest.raises(
        CheckpointError, match=r"^the file: tensor 'x' has a malformed header entry"
    ):
        read({"x": entry(**changes)}, data)


@pytest.mark.parametrize(
    "spoiled",
    [
        None,
        7,
        {},
        {"dtype": "F32", "shape": [2, 3]},
        {"dtype": "F32", "data_offsets": [0, 24]},
        {"shape": [2, 3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24, 48]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [24]},
        {"dtype": "F32", "shape": 6, "data_offsets": [0, 24]},
    ],
)
def test_entries_that_lack_something(spoiled: object) -> None:
    with pytest.raises(CheckpointError, match="tensor 'x' has a malformed header entry"):
        read({"x": spoiled}, 24)


def test_a_size_below_the_greatest_is_a_size() -> None:
    """It is the bytes that do not fit then, not the entry."""
    with pytest.raises(CheckpointError, match=r"is F32 \[9223372036854775807, 0\] but takes 24"):
        read({"x": entry(shape=((1 << 63) - 1, 0))}, 24)


def test_an_item_takes_the_bits_of_its_name() -> None:
    bits = {name: int(re.findall(r"\d+", name)[0]) for name in ITEM_SIZES if name != "BOOL"}
    assert {name: 8 * size for name, size in ITEM_SIZES.items()} == {**bits, "BOOL": 8}


def test_unknown_dtypes_and_sizes_that_do_not_agree() -> None:
    with pytest.raises(CheckpointError, match="has the unknown dtype 'F3'; known: F64, F32, F16"):
        read({"x": entry("F3")}, 24)
    with pytest.raises(
        CheckpointError, match=r"is F4, floats of less than a byte: .* is quantized"
    ):
        read({"x": entry("F4")}, 24)
    for end in (23, 25):
        with pytest.raises(CheckpointError, match=rf"is F32 \[2, 3\] but takes {end} bytes"):
            read({"x": entry(end=end)}, end)


def test_the_data_is_covered_once_and_to_its_end() -> None:
    def two(begin: int) -> Table:
        return {"a": entry("U8", (4,), 0, 4), "b": entry("U8", (4,), begin, begin + 4)}

    assert len(read(two(4), 8)) == 2
    with pytest.raises(CheckpointError, match="the data of tensor 'b' overlaps the one before it"):
        read(two(3), 7)
    with pytest.raises(CheckpointError, match="the data of tensor 'b' leaves a hole"):
        read(two(5), 9)
    with pytest.raises(CheckpointError, match="'a' leaves a hole"):
        read({"a": entry("U8", (4,), 1, 5)}, 5)
    with pytest.raises(CheckpointError, match=r"the file is truncated \(its header needs"):
        read(two(4), 7)
    with pytest.raises(CheckpointError, match="the file has bytes after its last tensor"):
        read(two(4), 9)


def read_text(text: str, data: int) -> dict[str, TensorEntry]:
    content = len(text.encode()).to_bytes(8, "little") + text.encode()
    return read_header(
        "the file",
        "model.safetensors",
        len(content) + data,
        lambda offset, length: content[offset : offset + length],
    )


@pytest.mark.parametrize(
    "text",
    [
        f'{{"w": {json.dumps(entry())}, "w": {json.dumps(entry(shape=(3, 2)))}}}',
        f'{{"w": {json.dumps(entry("F16", (2, 6)))}, "w": {json.dumps(entry("BF16", (2, 6)))}}}',
        f'{{"w": {json.dumps(entry())}, "\\u0077": {json.dumps(entry(shape=(6,)))}}}',
        '{"w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], "shape": [3, 2]}}',
        '{"a:b": {"dtype": "F32", "dtype": "I32", "shape": [6], "data_offsets": [0, 24]}}',
    ],
)
def test_a_key_that_is_given_twice_has_one_value(text: str) -> None:
    """One reader takes the first and another the last: neither is what the file says."""
    with pytest.raises(CheckpointError, match="is given twice, with different values"):
        read_text(text, 24)


def test_colons_in_names_and_a_key_twice_with_one_value_are_read() -> None:
    same = json.dumps(entry())
    text = f'{{"__metadata__": {{"url": "https://a"}}, "a:b": {same}, "a:b": {same}}}'
    assert list(read_text(text, 24)) == ["a:b"]


def test_names_are_cut_in_messages_only_where_they_are_long() -> None:
    for length, shown in ((200, "n" * 200), (201, "n" * 200 + "…")):
        with pytest.raises(CheckpointError, match=f"tensor '{shown}' has the unknown dtype"):
            read({"n" * length: entry("F3")}, 24)


def test_headers_that_cannot_be() -> None:
    with pytest.raises(CheckpointError, match=r"^the file: 7 bytes are no safetensors file"):
        read({}, 0, size=7)
    with pytest.raises(CheckpointError, match="its header claims 2 bytes, but the file has 9"):
        read({}, 0, size=9)
    with pytest.raises(CheckpointError, match="the header is not a JSON object"):
        read([], 0)
    spoilt = b"\1" + b"\0" * 7 + b"{"
    with pytest.raises(CheckpointError, match="the header is not valid JSON"):
        read_header("the file", "f", 9, lambda offset, length: spoilt[offset : offset + length])
    huge = (MAX_HEADER + 1).to_bytes(8, "little")
    with pytest.raises(CheckpointError, match=f"its header claims {MAX_HEADER + 1} bytes"):
        read_header("the file", "f", 1 << 40, lambda offset, length: huge)


def test_the_longest_header_is_read() -> None:
    """One byte longer is refused (above); this long it is only the JSON that is wrong."""
    asked: list[int] = []

    def answer(offset: int, length: int) -> bytes:
        asked.append(length)
        return MAX_HEADER.to_bytes(8, "little") if offset == 0 else b"{"

    with pytest.raises(CheckpointError, match="the header is not valid JSON"):
        read_header("the file", "f", MAX_HEADER + 8, answer)
    assert asked == [8, MAX_HEADER]
