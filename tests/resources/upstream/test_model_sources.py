"""Upstream models: what is taken, what is refused, and when a revision changes."""

import json
import os
import time
from pathlib import Path

import pytest

from resources.errors import (
    MissingSourceError,
    SourceChangedError,
    UnknownSchemeError,
    UnsafeWeightsError,
)
from resources.store.artifact_store import ArtifactStore
from resources.upstream import folder_source
from resources.upstream.folder_source import FolderModel
from resources.upstream.model_sources import open_model_source
from resources.upstream.source import wanted_files
from tests.resources.upstream_models import TAKEN, opened, write_model


def flip(file: Path, at: int) -> None:
    """Change one bit, and nothing else that a file system tells."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def changes(folder: Path) -> list[int]:
    """When the folder's files were changed, in nanoseconds, the oldest first."""
    return sorted(path.stat().st_ctime_ns for path in folder.rglob("*"))


def hash_at(moment: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the clock say `moment`, in nanoseconds, when files are hashed."""
    monkeypatch.setattr(time, "time_ns", lambda: moment)


@pytest.mark.parametrize("spelt", ["relative", "absolute", "file"])
def test_a_folder_is_copied_whole(
    store: ArtifactStore, folder: Path, tmp_path: Path, spelt
) -> None:
    uri = {"relative": folder.name, "absolute": str(folder), "file": folder.as_uri()}[spelt]
    source = open_model_source(uri, relative_to=folder.parent, cache=tmp_path / "revisions")
    assert source.location == str(folder)
    revision = source.revision()
    progress: list[tuple[int, int]] = []
    with store.attempt("checkpoint") as attempt:
        source.copy_to(attempt, lambda done, total: progress.append((done, total)))
        artifact = attempt.publish(revision=revision)
    assert set(artifact.files) == TAKEN
    assert artifact.content_digest == revision
    assert progress[-1] == (artifact.nbytes, artifact.nbytes)
    assert artifact.read_bytes("model.safetensors") == (folder / "model.safetensors").read_bytes()


def test_a_second_look_reads_no_file(folder: Path, tmp_path: Path, monkeypatch) -> None:
    hash_at(changes(folder)[-1] + 2_100_000_000, monkeypatch)
    revision = opened(folder, tmp_path).revision()
    monkeypatch.setattr(FolderModel, "_hash", lambda *_: pytest.fail("a file was read again"))
    assert opened(folder, tmp_path).revision() == revision


def test_one_byte_changes_the_revision(folder: Path, tmp_path: Path, monkeypatch) -> None:
    """Same size, mtime put back: the inode's change time tells."""
    hash_at(changes(folder)[-1] + 2_100_000_000, monkeypatch)
    revision = opened(folder, tmp_path).revision()
    weights = folder / "model.safetensors"
    before = weights.stat()
    with weights.open("r+b") as file:
        file.seek(1000)
        file.write(b"\xff")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    changed = opened(folder, tmp_path).revision()
    assert changed != revision
    with weights.open("r+b") as file:
        file.seek(1000)
        file.write(before_byte := bytes([1000 % 200]))
    assert before_byte == b"\x00"
    assert opened(folder, tmp_path).revision() == revision


def test_a_file_touched_just_now_is_not_trusted(tmp_path: Path, monkeypatch) -> None:
    """A write soon after the hashing could leave the stamps of a coarse clock alone.

    The two seconds are an hour here, which no machine is too slow for.
    """
    monkeypatch.setattr("resources.upstream.folder_source.RACY_NS", 3600 * 10**9)
    write_model(tmp_path / "new")
    hash_at(changes(tmp_path / "new")[0] + 1_900_000_000, monkeypatch)
    source = opened(tmp_path / "new", tmp_path)
    read = []
    original = FolderModel._hash
    monkeypatch.setattr(
        FolderModel,
        "_hash",
        lambda self, file, state: read.append(file) or original(self, file, state),
    )
    revision = source.revision()
    assert set(read) == TAKEN
    read.clear()
    assert opened(tmp_path / "new", tmp_path).revision() == revision
    assert set(read) == TAKEN


def test_files_that_do_not_count_do_not_change_the_revision(folder: Path, tmp_path: Path) -> None:
    revision = opened(folder, tmp_path).revision()
    (folder / "training_args.bin").write_text("other")
    (folder / "notes.pdf").write_text("new")
    assert opened(folder, tmp_path).revision() == revision
    (folder / "generation_config.json").write_text("{}")
    assert opened(folder, tmp_path).revision() != revision


def test_a_spoilt_memory_only_costs_time(folder: Path, tmp_path: Path) -> None:
    revision = opened(folder, tmp_path).revision()
    (memory,) = (tmp_path / "revisions").iterdir()
    right = memory.read_bytes()
    for data in (
        b"", b"[]", b'{"format": 1, "files": {"config.json": 3}}', b'{"format": 2}', b"[" * 200_000,
        right.split(b"\n")[0] + b"\n" + b"[" * 200_000, right[:-40], b"\xff\xfe" + right,
        b'{"format": ' + b"9" * 5000 + b"}\n",
    ):  # fmt: skip
        memory.write_bytes(data)
        assert opened(folder, tmp_path).revision() == revision


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9])
def test_a_flipped_bit_of_the_memory_changes_no_revision(
    folder: Path, tmp_path: Path, monkeypatch, place: float
) -> None:
    hash_at(changes(folder)[-1] + 2_100_000_000, monkeypatch)
    revision = opened(folder, tmp_path).revision()
    (memory,) = (tmp_path / "revisions").iterdir()
    data = bytearray(memory.read_bytes())
    data[int(place * len(data))] ^= 1
    memory.write_bytes(data)
    assert opened(folder, tmp_path).revision() == revision


def test_a_place_without_a_memory_only_costs_time(folder: Path, tmp_path: Path) -> None:
    revision = opened(folder, tmp_path).revision()
    (tmp_path / "file").write_text("")
    source = open_model_source(str(folder), tmp_path, cache=tmp_path / "file" / "x")
    assert source.revision() == revision


def test_a_model_that_changes_meanwhile_is_not_copied(
    store: ArtifactStore, folder: Path, tmp_path: Path
) -> None:
    source = opened(folder, tmp_path)
    source.revision()
    (folder / "merges.txt").write_text("other")
    with (
        store.attempt("checkpoint") as attempt,
        pytest.raises(SourceChangedError, match=r"merges\.txt changed while it was read; wait"),
    ):
        source.copy_to(attempt)
    assert list(store.place.walk("attempts")) == []


def test_bytes_that_rotted_under_equal_stamps_are_not_copied(
    store: ArtifactStore, folder: Path, tmp_path: Path, monkeypatch
) -> None:
    """The memory says what the file was; nothing but its bytes says what it is."""
    hash_at(changes(folder)[-1] + 2_100_000_000, monkeypatch)
    revision = opened(folder, tmp_path).revision()
    state_of = folder_source._state_of
    states = {path.stat().st_ino: state_of(path.stat()) for path in folder.rglob("*")}
    flip(folder / "model.safetensors", 1000)
    source = opened(folder, tmp_path)
    monkeypatch.setattr(folder_source, "_state_of", lambda found: states[found.st_ino])
    assert source.revision() == revision
    with (
        store.attempt("checkpoint") as attempt,
        pytest.raises(SourceChangedError, match=r"model\.safetensors has other bytes than when"),
    ):
        source.copy_to(attempt)
    monkeypatch.undo()
    assert opened(folder, tmp_path).revision() != revision  # the way out that it names
    assert list(store.place.walk("attempts")) == []


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingSourceError, match="nowhere is not there, or is no folder; correct"):
        open_model_source("nowhere", tmp_path).revision()
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingSourceError, match=r"has no \.safetensors file; there is nothing"):
        open_model_source("empty", tmp_path).revision()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(MissingSourceError, match=r"there is config\.json\. Name a Hugging Face"):
        open_model_source("empty", tmp_path).revision()


@pytest.mark.parametrize("name", ["model.pt", "model.ckpt", "weights.pkl", "training_args.bin"])
def test_pickles_that_nothing_converts_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / name).write_bytes(b"\x80\x04N.")
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(UnsafeWeightsError, match=rf"only as pickle \({name}\).*convert them to"):
        open_model_source("model", tmp_path).revision()
    assert wanted_files([name, "model.safetensors"], "here") == ["model.safetensors"]


@pytest.mark.parametrize("names", [
    ["pytorch_model.bin"], ["adapter_model.bin"],
    ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"],
])  # fmt: skip
def test_pickles_of_transformers_and_peft_are_taken_where_there_is_nothing_else(
    names: list[str],
) -> None:
    found = wanted_files([*names, "optimizer.pt", "training_args.bin", "config.json"], "here")
    assert found == sorted([*names, "config.json"])
    assert wanted_files([*names, "model.safetensors"], "here") == ["model.safetensors"]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("http://host/x", r"http:// is not supported; allowed are a folder.*"
                          r"file://, s3://, hf:// and modelscope://"),
        ("modelscope://only-a-name", r"write modelscope://owner/name, or modelscope://owner/name@"),
        ("modelscope://a/b?token=hidden-secret", "credentials come from the environment"),
        ("file://relative", "is not absolute"),
        ("hf://only-a-name", r"write hf://owner/name, or hf://owner/name@revision"),
        ("s3://key:hidden-secret@bucket/x", "credentials come from the environment"),
        ("https://user:hidden-secret@host/x", "credentials come from the environment"),
    ],
)  # fmt: skip
def test_schemes_are_checked(tmp_path: Path, uri: str, said: str) -> None:
    with pytest.raises(UnknownSchemeError, match=said) as refused:
        open_model_source(uri, tmp_path)
    assert "hidden-secret" not in str(refused.value)


def test_the_memory_of_hashes_is_plain_json(folder: Path, tmp_path: Path) -> None:
    opened(folder, tmp_path).revision()
    (memory,) = (tmp_path / "revisions").iterdir()
    first, rows = memory.read_text().splitlines()
    assert json.loads(first)["format"] == 2
    assert set(json.loads(rows)) == TAKEN
