"""Pickled weights as a source: headers at once, tensors when they are needed, and bombs refused."""

import os
import struct
import sys
from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints import open_checkpoint
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.pickles import pickled_parts
from merge_ops.checkpoints.pickles.pickled_weights import PickledFiles, convert_folder
from merge_ops.errors import CheckpointError
from tests.models import checkpoint_factory as factory

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    base, _ = factory.write_family(tmp_path, SHAPE, experts=0)
    torch.save(factory.read_tensors(base), base / "pytorch_model.bin")
    (base / "model.safetensors").unlink()
    return base


def bomb(path: Path, body: bytes) -> None:
    """A file of before torch 1.6 that has `body` where its tensors should be."""
    pickled = [b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", b"M\xe9\x03.", b"}.", body]
    path.write_bytes(b"".join(b"\x80\x02" + each for each in pickled))


def test_it_is_opened_by_its_index_and_converted_once(folder: Path) -> None:
    source = PickledFiles(folder)
    opened = open_checkpoint("m", source)
    assert source.path == folder
    out = folder.parent / "converted"
    out.mkdir()
    convert_folder(folder, out)
    name, entry = next(iter(opened.tensors.items()))
    data = read_file(source, entry.file, entry.offset, entry.nbytes)
    assert data == factory.read_tensors(out)[name].numpy().tobytes()
    first = source.path
    assert first != folder
    source.fetch()
    assert source.path == first
    there = {path.name: path.stat().st_size for path in first.iterdir()}
    assert source.sizes() == {name: n for name, n in there.items() if not name.startswith(".")}


def test_a_file_that_changes_after_it_was_opened_is_refused(folder: Path) -> None:
    source = PickledFiles(folder)
    torch.save({"other": torch.ones(3)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is another file than when it wa"):
        source.fetch()


def test_a_pickle_that_takes_memory_is_one_clear_fault(folder: Path) -> None:
    far = b"(l" + b"r" + struct.pack("<I", 1 << 31) + b"."  # a memo of 2,147,483,648 places
    bomb(folder / "pytorch_model.bin", far)
    with pytest.raises(
        CheckpointError,
        match=rf"^{folder}: pytorch_model.bin is refused, and nothing in it was run: the child that"
        rf" reads pickles of {folder} ended: out of memory \(limit 0.5 GiB\). Ask for safetensors",
    ):
        PickledFiles(folder)


def test_a_pickle_that_takes_time_is_one_clear_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tuples of tuples, 60 deep: each is one object, and their hash takes 2^60 steps."""
    monkeypatch.setattr(pickled_parts, "LEAST_SECONDS", 1)
    nested = b")" + b"q\x01h\x01\x86" * 60
    bomb(folder / "pytorch_model.bin", b"}" + nested + b"Ns.")
    with pytest.raises(CheckpointError, match=r"ended: it took more than 1 s of CPU time"):
        PickledFiles(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="memory of children is told by Linux")
def test_the_memory_of_the_child_does_not_grow_with_its_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """128 MiB of tensors, one of them transposed, in a child that may have 100."""
    monkeypatch.setattr(pickled_parts, "LEAST_MEMORY", 100 << 20)
    monkeypatch.setattr(pickled_parts, "MEMORY_A_BYTE", 0)
    path = tmp_path / "large.bin"
    part = torch.zeros(32 << 20, dtype=torch.uint8)
    table = {str(n): part.clone() for n in range(3)}
    torch.save({**table, "t": torch.zeros(4 << 10, 8 << 10, dtype=torch.uint8).T}, path)
    made = tmp_path / "large.safetensors"
    with pickled_parts.PickleReader("large") as reader:
        reader.convert(path, made)
    assert made.stat().st_size > 127 << 20
    os.truncate(path, 0)
    os.truncate(made, 0)
