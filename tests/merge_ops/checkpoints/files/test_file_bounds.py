"""Files that take far more than their size are refused by their bounds, before they are read."""

from pathlib import Path

import pytest

from merge_ops.checkpoints import header
from merge_ops.checkpoints.files import bounded_yaml, strict_json
from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents, read_documents
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.files.file_bounds import (
    CONFIG,
    INDEX,
    MAX_DOCUMENT,
    VOCABULARY,
    Bound,
    bound_of,
)
from merge_ops.checkpoints.files.json_files import JsonFiles
from merge_ops.checkpoints.files.plain_files import digest_of_file, read_bounded
from merge_ops.checkpoints.files.strict_json import load_json, load_shallow_json, parse_json_object
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.sentencepiece_pieces import sentencepiece_pieces
from merge_ops.checkpoints.vocabulary_forms import LINES, RANKS, rows_in
from merge_ops.errors import CheckpointError, UnreadableFileError
from tests.models import checkpoint_factory as factory


def sparse(path: Path, size: int) -> Path:
    with path.open("wb") as file:
        file.truncate(size)
    return path


@pytest.mark.parametrize(
    ("file", "bound"),
    [
        ("config.json", CONFIG), ("1_Pooling/config.json", CONFIG), ("tokenizer.json", VOCABULARY),
        ("vocab.json", VOCABULARY), ("model.safetensors.index.json", INDEX),
        ("pytorch_model.bin.index.json", INDEX), ("tokenizer_config.json", CONFIG),
    ],
)  # fmt: skip
def test_each_kind_has_its_bound(file: str, bound: Bound) -> None:
    assert bound_of(file) is bound


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "generation_config.json"])
def test_a_sparse_file_is_refused_before_it_is_read(tmp_path: Path, file: str) -> None:
    sparse(tmp_path / file, 10 << 30)
    source = FolderSource(tmp_path)
    with pytest.raises(CheckpointError, match=f"{file}: has 10737418240 bytes, and a file of this"):
        JsonFiles(source, source.sizes()).read(file)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"[" * 100_000, "nested more than 100 deep"),
        (b"[" * 102 + b"]" * 102, "nested more than 100 deep"),
        (b'{"a":' * 300 + b"1" + b"}" * 300, "nested more than 100 deep"),
        (b"1" * 301, "a whole number of 301 digits"),
        (b'{"a": -' + b"9" * 4000 + b"}", "a whole number of 4001 digits"),
        (b"9" * 5000, "a whole number of 5000 digits"),
        (b"\xff\xfe", "invalid start byte"),
        (b'"\\ud800"', "surrogates not allowed"),
        (b'{"a": 1, "a": 2}', "the key 'a' is given twice"),
        (b'"a\0b"', "Invalid control character"),
    ],
)
def test_json_beyond_its_bounds_is_a_value_error(text: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_shallow_json(text, one_value_each=True)


@pytest.mark.parametrize(
    "text",
    [
        b'{"model_max_length": 1000000000000000019884624838656}',
        b'{"t": "' + b"1" * 5000 + b'"}',
        b"0." + b"1" * 5000,
        b'{"time_step_limit": [0.0, Infinity]}',
    ],
)
def test_what_models_files_hold_is_read(text: bytes) -> None:
    assert load_shallow_json(text) is not None


def test_many_small_values_are_counted_before_they_are_made() -> None:
    bound = Bound(1000, 10)
    assert load_json(b"[1,2,3,4,5,6,7,8,9,10]", bound=bound)
    with pytest.raises(ValueError, match="it holds more than 10 values"):
        load_json(b"[1,2,3,4,5,6,7,8,9,10,11]", bound=bound)
    with pytest.raises(CheckpointError, match=r"x: not valid JSON .it has 1001 bytes, and at most"):
        parse_json_object("x", b" " * 1001, bound)


def test_a_model_of_far_too_many_tensors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    factory.write_checkpoint(tmp_path, factory.base_tensors(factory.LLAMA), factory.LLAMA)
    monkeypatch.setattr(header, "MAX_TENSORS", 5)
    (fault,) = read_folder(FolderSource(tmp_path)).verdict.faults
    assert "model.safetensors: holds more than 5 tensors, which are the most" in fault


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: !!binary x", "a on line 1 is a !!binary; write a plain value"),
        ("a: !!set {x, y}", "a on line 1 is a !!set"),
        ("!!omap [a: 1]", "on line 1 is a !!omap"),
        ("a: [!!pairs [b: 1]]", r"a\[0\] on line 1 is a !!pairs"),
        ("a: 0x" + "f" * 300, "a on line 1 is a number of more than 250 characters"),
        ("a: " + "9" * 251, "a on line 1 is a number of more than 250 characters"),
        ("a: " + ":59" * 100, "."),
        ("{.nan: 1}", "has a number with a fraction for a key, on line 1; write a name"),
        ("{1.5: 1}", "has a number with a fraction for a key"),
        ("? [a]\n: 1", "has a list for a key, on line 1"),
        ("a: 2001-13-01", "it holds a value that cannot be read"),
        ("a: !!int x", "it holds a value that cannot be read"),
    ],
)  # fmt: skip
def test_values_of_no_recipe_are_refused(text: str, told: str) -> None:
    if told == ".":
        load_documents(text)
        return
    with pytest.raises(DocumentError, match=told):
        load_documents(text)


def test_nodes_are_counted_while_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_yaml, "MAX_NODES", 100)
    with pytest.raises(DocumentError, match="holds more than 100 values; split the file"):
        load_documents("- a\n" * 101)


def test_special_and_large_files_are_no_documents(tmp_path: Path) -> None:
    sparse(tmp_path / "large.yaml", MAX_DOCUMENT + 1)
    for path, told in (
        (tmp_path / "large.yaml", f"the file has more than {MAX_DOCUMENT} bytes"),
        (Path("/dev/zero"), "the file is a device, and no file"),
        (tmp_path, r"the file cannot be read \(Is a directory\)"),
        (tmp_path / ("x" * 5000), r"the file cannot be read \(File name too long\)"),
        (tmp_path / "a\0b", "the file cannot be read .embedded null byte"),
    ):
        with pytest.raises(DocumentError, match=told):
            read_documents(path)
    with pytest.raises(FileNotFoundError):
        read_documents(tmp_path / "nowhere.yaml")


def test_a_file_that_grows_ends_at_its_bound(tmp_path: Path) -> None:
    path = sparse(tmp_path / "f", 11)
    assert read_bounded(path, 11) == bytes(11)
    with pytest.raises(UnreadableFileError, match="has more than 10 bytes"):
        read_bounded(path, 10)
    with pytest.raises(UnreadableFileError, match="is a device, and no file"):
        digest_of_file(Path("/dev/zero"))


@pytest.mark.parametrize("form", [LINES, RANKS])
def test_lines_of_no_vocabulary_are_not_read(form: str) -> None:
    with pytest.raises(ValueError, match="more than 4000000 lines"):
        rows_in(form, b"\n" * 4_000_001)


def test_a_sentencepiece_model_of_other_fields_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merge_ops.checkpoints.sentencepiece_pieces.MAX_PIECES", 5)
    with pytest.raises(ValueError, match="more than 105 fields"):
        sentencepiece_pieces(b"\x10\x01" * 200)


def test_the_digits_are_looked_for_before_the_text_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(data: bytes) -> None:
        raise AssertionError("a text without long numbers is read once")

    monkeypatch.setattr(strict_json, "_refuse_long_numbers", never)
    assert load_json(b"[" + b"123456789," * 1000 + b"1]")
