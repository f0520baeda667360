"""Weights without a config, other file names, shards of the output."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory


def write_unet(folder: Path, seed: int) -> dict[str, torch.Tensor]:
    """A folder as diffusers writes it."""
    shapes = {
        "down_blocks.0.resnets.0.conv1.weight": (4, 3, 3, 3),
        "mid_block.attentions.0.proj.bias": (4,),
        "time_embedding.linear_1.weight": (4, 6),
    }
    tensors = {name: factory.draw(name, shape, seed, 1.0) for name, shape in shapes.items()}
    folder.mkdir()
    save_file(tensors, folder / "diffusion_pytorch_model.safetensors")
    factory.write_json(folder / "config.json", {"_class_name": "UNet2DConditionModel"})
    return tensors


def merge_two(tmp_path, first, second, *options):
    config = tmp_path / "study.yaml"
    config.write_text(
        "merge_method: linear\nmodels:\n"
        f"  - {{model: {first}, parameters: {{weight: 1}}}}\n"
        f"  - {{model: {second}, parameters: {{weight: 3}}}}\n"
    )
    done = ronghe("merge", config, tmp_path / "out", *options)
    assert done.returncode == 0, done.stderr
    return tmp_path / "out"


def test_a_diffusers_folder_keeps_its_names(tmp_path):
    one, two = (write_unet(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2)))
    out = merge_two(tmp_path, tmp_path / "one", tmp_path / "two")
    merged = load_file(out / "diffusion_pytorch_model.safetensors")
    for name, value in merged.items():
        torch.testing.assert_close(value, (one[name] + 3 * two[name]) / 4)
    assert json.loads((out / "config.json").read_text())["_class_name"] == "UNet2DConditionModel"


def test_single_files_merge_by_the_names_of_their_tensors(tmp_path):
    one, two = (write_unet(tmp_path / name, seed) for name, seed in (("one", 1), ("two", 2)))
    file = "diffusion_pytorch_model.safetensors"
    out = merge_two(tmp_path, tmp_path / "one" / file, tmp_path / "two" / file)
    merged = load_file(out / file)
    assert merged.keys() == one.keys() == two.keys()
    assert not (out / "config.json").exists()


def test_an_output_in_several_files_holds_the_same_tensors(tmp_path):
    shape = replace(factory.QWEN2, layers=4)
    base, (one,) = factory.write_family(tmp_path / "family", shape, experts=1)
    whole = merge_two(tmp_path, base, one).rename(tmp_path / "whole")
    out = merge_two(tmp_path, base, one, "--shard-size", "200KB")
    files = sorted(path.name for path in out.glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert max(path.stat().st_size for path in out.glob("*.safetensors")) < 210_000
    assert {name: value.tolist() for name, value in factory.read_tensors(out).items()} == {
        name: value.tolist() for name, value in factory.read_tensors(whole).items()
    }
    AutoModelForCausalLM.from_pretrained(out)


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("model.gguf", r"holds quantized weights \(model.gguf\); merge the unquantized"),
        ("pytorch_model.bin", r"holds pickled weights \(pytorch_model.bin\)"),
    ],
)
def test_what_cannot_be_read_is_named(file, expected, tmp_path):
    (tmp_path / file).write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint("m", FolderSource(tmp_path))


def test_a_size_that_is_none_is_refused(tmp_path):
    base, _ = factory.write_family(tmp_path / "family", factory.QWEN2, experts=1)
    config = tmp_path / "study.yaml"
    config.write_text(f"merge_method: passthrough\nmodels: [{{model: {base}}}]\n")
    done = ronghe("merge", config, tmp_path / "out", "--shard-size", "some")
    assert done.returncode == 2
    assert "--shard-size is 'some'; give a number of bytes such as" in done.stderr
