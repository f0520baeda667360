"""What is copied into the store of models with and without pickled weights."""

import json

import pytest
import torch

from assets.work.upstream.unpickling import copy_unpickled
from merge_ops.checkpoints.files.byte_sources import FolderSink
from merge_ops.errors import CheckpointError
from resources.upstream.folder_source import FolderModel
from tests.models import checkpoint_factory as factory

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)


def copied(folder, out):
    out.mkdir()
    copy_unpickled(FolderModel(folder, out.parent / "hashes"), FolderSink(out))
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_model_with_safetensors_stays_as_it_is(tmp_path):
    """With an index of the pickles beside it, as many models have one; the pickles stay out."""
    base, _ = factory.write_family(tmp_path, SHAPE, experts=0)
    (base / "pytorch_model.bin.index.json").write_text("{}")
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    (base / "pytorch_model.bin").write_bytes(b"no pickle")
    assert copied(base, tmp_path / "out") == before


def test_pickles_are_replaced_by_safetensors_of_the_same_values(tmp_path):
    base, _ = factory.write_family(tmp_path, SHAPE, experts=0)
    tensors = factory.read_tensors(base)
    (base / "model.safetensors").unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    (base / "training_args.bin").write_bytes(b"a pickle of its own")
    found = copied(base, tmp_path / "out")
    assert not [name for name in found if name.endswith(".bin")]
    assert "tokenizer.json" in found
    after = factory.read_tensors(tmp_path / "out")
    assert after.keys() == tensors.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in tensors.items())


def test_messages_name_the_source_and_no_temporary_folder(tmp_path):
    base, _ = factory.write_family(tmp_path, SHAPE, experts=0)
    (base / "model.safetensors").unlink()
    torch.save([1, 2], base / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=rf"^{base}: its pickled weights are refused"):
        copied(base, tmp_path / "out")
    index = {"weight_map": {"a": "../other.bin"}}
    (base / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=rf"^{base}/pytorch_model.bin.index.json: shard"):
        copied(base, tmp_path / "more")
