"""Reading headers and indexes: real files open, damaged ones say what is wrong."""

import contextlib
import json
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save_file

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.layout import OutputTensor, index_file, lay_out, natural_key
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, MissingModelError, OutputError
from tests.models import checkpoint_factory as factory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("one"), factory.QWEN2, experts=0).base


def open_folder(path):
    return open_checkpoint("m", FolderSource(Path(path)))


def test_headers_agree_with_safetensors(folder):
    tensors = factory.read_tensors(folder)
    checkpoint = open_folder(folder)
    assert set(checkpoint.tensors) == set(tensors)
    for name, entry in checkpoint.tensors.items():
        assert entry.shape == tuple(tensors[name].shape)
        assert entry.nbytes == tensors[name].nbytes
    assert checkpoint.ties_embeddings


def test_shards_and_their_index(tmp_path):
    base = factory.write_family(tmp_path, factory.LLAMA, experts=0, shards=3).base
    assert len({entry.file for entry in open_folder(base).tensors.values()}) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (factory.truncate_weights, r"model.safetensors: the file is truncated"),
        (factory.overstate_header, r"its header claims \d+ bytes, but the file has"),
        (factory.overlap_tensors, r"the data of tensor .* (overlaps|leaves a hole)"),
        (factory.point_index_outside, r"lies outside the folder"),
        (lambda f: factory.point_index_outside(f, "/etc/passwd"), r"lies outside the folder"),
        (lambda f: (f / "config.json").write_text("{"), r"config.json: not valid JSON"),
        (lambda f: (f / "config.json").write_text("[]"), r"a JSON object was expected"),
        (lambda f: (f / "model.safetensors").write_bytes(b"12"), r"are no safetensors file"),
    ],
)
def test_damaged_files(folder, tmp_path, spoil, message):
    with pytest.raises(CheckpointError, match=message):
        open_folder(factory.spoiled(folder, tmp_path / "copy", spoil))


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_an_index_without_a_map(folder, tmp_path, index):
    with pytest.raises(CheckpointError, match=r"index.json: 'weight_map' is missing"):
        open_folder(
            factory.spoiled(
                folder, tmp_path / "copy", lambda copy: factory.write_json(copy / INDEX, index)
            )
        )


def test_a_shard_that_is_not_there(folder, tmp_path):
    def gone(copy):
        (copy / "model.safetensors").unlink()
        factory.write_json(copy / INDEX, {"weight_map": {"a": "gone.safetensors"}})

    with pytest.raises(CheckpointError, match=r"index.json: shard gone.safetensors is not there"):
        open_folder(factory.spoiled(folder, tmp_path / "copy", gone))


def test_weights_of_another_name(folder, tmp_path):
    """One loose file is taken, with or without an index of its name; two need an index."""

    def renamed(copy):
        (copy / "model.safetensors").rename(copy / "diffusion.safetensors")
        factory.edit_config(copy, _class_name="UNet2DConditionModel")

    def of_transformers(copy):
        (copy / "model.safetensors").rename(copy / "diffusion.safetensors")

    def indexed(copy):
        renamed(copy)
        places = dict.fromkeys(factory.read_tensors(folder), "diffusion.safetensors")
        factory.write_json(copy / "diffusion.safetensors.index.json", {"weight_map": places})

    def doubled(copy):
        renamed(copy)
        (copy / "other.safetensors").write_bytes((copy / "diffusion.safetensors").read_bytes())

    whole = open_folder(folder)
    for number, spoil in enumerate((renamed, indexed)):
        found = open_folder(factory.spoiled(folder, tmp_path / str(number), spoil))
        assert (found.stem, found.nbytes) == ("diffusion", whole.nbytes)
    assert whole.nbytes == sum(each.nbytes for each in factory.read_tensors(folder).values())
    found = open_folder(factory.spoiled(folder, tmp_path / "3", of_transformers))
    assert found.stem == "model"  # which is all that transformers loads
    with pytest.raises(CheckpointError, match=r"holds 2 .safetensors files and no index; model"):
        open_folder(factory.spoiled(folder, tmp_path / "2", doubled))


def test_quantized_weights_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "q4.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"holds quantized weights \(q4.gguf\); merge the"):
        open_folder(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(MissingModelError, match="does not exist or is empty"):
        open_folder(tmp_path / "none")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(MissingModelError, match=r"holds no .safetensors file"):
        open_folder(tmp_path)


def test_pickles_are_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"pickled weights .* can run code"):
        open_folder(tmp_path)


def test_adapters_are_refused_by_name(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is a LoRA adapter"):
        open_folder(tmp_path)


def test_a_stale_second_file_is_noticed(folder, tmp_path):
    def duplicate(copy):
        (copy / "old.safetensors").write_bytes((copy / "model.safetensors").read_bytes())
        names = list(factory.read_tensors(folder))
        places = dict.fromkeys(names, "model.safetensors") | {names[0]: "old.safetensors"}
        factory.write_json(copy / "model.safetensors.index.json", {"weight_map": places})

    with pytest.raises(CheckpointError, match="remove the stale file"):
        open_folder(factory.spoiled(folder, tmp_path / "copy", duplicate))


def test_an_index_that_promises_too_much(folder, tmp_path):
    def promise(copy):
        factory.write_json(
            copy / "model.safetensors.index.json", {"weight_map": {"ghost": "model.safetensors"}}
        )

    with pytest.raises(CheckpointError, match=r"index says tensor 'ghost' is in model.safetensors"):
        open_folder(factory.spoiled(folder, tmp_path / "copy", promise))


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_an_error_of_ours_or_a_checkpoint(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz")
    header = content[8:]
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with contextlib.suppress(CheckpointError):
        open_folder(path)


entry = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "BF16", "I64", "Q4"]) | st.none(),
        "shape": st.lists(st.integers(-1, 5), max_size=3) | st.text(max_size=2),
        "data_offsets": st.lists(st.integers(-4, 60), max_size=3) | st.integers(),
    },
)


@given(st.dictionaries(st.text(max_size=3), entry, max_size=4), st.integers(0, 80))
@settings(max_examples=300, deadline=None)
def test_any_header_is_an_error_of_ours_or_a_checkpoint(tmp_path_factory, header, data):
    path = tmp_path_factory.mktemp("fuzz")
    text = json.dumps(header).encode()
    (path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(data))
    try:
        checkpoint = open_folder(path)
    except CheckpointError:
        return
    assert sum(each.nbytes for each in checkpoint.tensors.values()) == data


def test_a_laid_out_file_is_what_safetensors_reads():
    tensors = [OutputTensor("b.1", "BF16", (2, 3)), OutputTensor("a.1", "F32", (4,))]
    (shard,) = lay_out(tensors)
    data = load(shard.header + bytes(shard.size - len(shard.header)))
    assert {name: (value.dtype, tuple(value.shape)) for name, value in data.items()} == {
        "b.1": (torch.bfloat16, (2, 3)),
        "a.1": (torch.float32, (4,)),
    }
    assert [tensor.name for tensor in shard.tensors] == ["a.1", "b.1"]  # wider items first
    assert index_file([shard]) == {}


def test_shards_split_at_the_limit_and_are_indexed():
    tensors = [OutputTensor(f"t.{number}", "F32", (10,)) for number in range(5)]
    shards = lay_out(tensors, shard_bytes=80)
    assert [len(shard.tensors) for shard in shards] == [2, 2, 1]
    assert shards[0].file == "model-00001-of-00003.safetensors"
    index = json.loads(index_file(shards)["model.safetensors.index.json"])
    assert index["metadata"]["total_size"] == 200
    assert index["weight_map"]["t.4"] == "model-00003-of-00003.safetensors"


def test_layer_two_comes_before_layer_ten():
    assert sorted(["l.10.w", "l.2.w"], key=natural_key) == ["l.2.w", "l.10.w"]


def test_a_full_disk_shows_at_once(tmp_path):
    with pytest.raises(OutputError, match="cannot be reserved"):
        FolderSink(tmp_path).open("model.safetensors", 1 << 60)
    assert list(tmp_path.iterdir()) == []


def test_float8_and_bool_tensors_have_entries(tmp_path):
    tensors = {"f": torch.zeros(3, dtype=torch.float8_e4m3fn), "b": torch.ones(2, dtype=torch.bool)}
    save_file(tensors, tmp_path / "model.safetensors")
    assert {e.dtype for e in open_folder(tmp_path).tensors.values()} == {"F8_E4M3", "BOOL"}
