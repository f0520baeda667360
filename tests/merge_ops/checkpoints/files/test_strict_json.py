"""JSON of strangers: what no other reader takes is refused, at any depth, in our words."""

import json

import pytest

from merge_ops.checkpoints.files.strict_json import MAX_DEPTH, load_json, parse_json_object
from merge_ops.errors import CheckpointError


def nested(depth: int, kind: str) -> bytes:
    """`depth` containers in one another."""
    inner = "[" * (depth - 1) + "]" * (depth - 1) if kind == "list" else ""
    if kind == "list":
        return ('{"a":' + inner + "}").encode()
    return ('{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)).encode()


@pytest.mark.parametrize("kind", ["list", "dict"])
def test_depth_is_bounded(kind: str) -> None:
    # The outermost object lies in none: it may hold MAX_DEPTH more.
    assert parse_json_object("f", nested(MAX_DEPTH + 1, kind)) != {}
    with pytest.raises(CheckpointError, match=r"^f: nested more than 100 deep, as no"):
        parse_json_object("f", nested(MAX_DEPTH + 2, kind))


def test_a_wide_file_is_not_a_deep_one() -> None:
    wide = {str(number): [number, {"x": []}] for number in range(500)}
    assert parse_json_object("f", json.dumps(wide).encode()) == wide


def test_depth_beyond_what_python_parses() -> None:
    with pytest.raises(CheckpointError, match=r"^f: (not valid JSON|nested more than)"):
        parse_json_object("f", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"{'a': 1}", '{"a": "中"}'.encode("utf-16"), b'{"a": "\xff"}', b"\xef\xbb\xbf{}"],
)
def test_what_is_no_json_in_utf_8(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        load_json(data)
    with pytest.raises(CheckpointError, match=r"^f: not valid JSON \(.*\); restore the file from"):
        parse_json_object("f", data)


@pytest.mark.parametrize("half", [r"\ud800", r"\uDBFF", r"\udc00", r"\uDFFF", r"a\uD9Ab"])
def test_halves_of_characters_are_refused(half: str) -> None:
    for text in (f'{{"a": "{half}"}}', f'{{"{half}": 1}}', f'{{"a": ["{half}"]}}'):
        with pytest.raises(ValueError, match="surrogates not allowed"):
            load_json(text.encode())


def test_whole_characters_are_read_however_they_are_written() -> None:
    assert load_json(rb'["\ud83d\ude00", "\u4e2d", "\\ud800", "\ue000"]') == [
        "😀", "中", r"\ud800", "\ue000",
    ]  # fmt: skip
    assert load_json('"中😀"'.encode()) == "中😀"


@pytest.mark.parametrize("data", [b"[]", b"3", b"null", b'"a"', b'[{"a": 1}]'])
def test_values_that_are_no_object(data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"^f: a JSON object was expected; restore"):
        parse_json_object("f", data)


def test_a_key_has_one_value():
    with pytest.raises(CheckpointError, match="the key 'a' is given twice, with different values"):
        parse_json_object("config.json", b'{"b": {"a": 1, "a": 2}}')
    assert parse_json_object("config.json", b'{"a": [1], "a": [1]}') == {"a": [1]}
