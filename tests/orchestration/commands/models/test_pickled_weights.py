"""Pickled weights are converted before they are opened, and a pickle that does more is refused."""

import json
import os
import pickle

import pytest
import torch

from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)
SUM = "merge_method: task_arithmetic\nbase_model: {base}\nmodels:\n"
EXPERT = "  - {{model: {model}, parameters: {{weight: 0.5}}}}\n"


class Malice:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickle_weights(folder, shards=1, legacy=False):
    """Turns a folder's safetensors into what older versions of transformers and PEFT saved."""
    (file,) = folder.glob("*.safetensors")
    tensors = factory.read_tensors(folder)
    stem = file.stem.replace("model", "pytorch_model") if file.stem == "model" else file.stem
    file.unlink()
    zipped = {"_use_new_zipfile_serialization": not legacy}
    if shards == 1:
        torch.save(tensors, folder / f"{stem}.bin", **zipped)
        return
    weight_map = {}
    for number in range(shards):
        part = dict(list(tensors.items())[number::shards])
        name = f"{stem}-{number + 1:05d}-of-{shards:05d}.bin"
        torch.save(part, folder / name, **zipped)
        weight_map |= dict.fromkeys(part, name)
    factory.write_json(folder / f"{stem}.bin.index.json", {"weight_map": weight_map})


def merge(tmp_path, out, base, *models):
    config = tmp_path / "m.yaml"
    config.write_text(SUM.format(base=base) + "".join(EXPERT.format(model=m) for m in models))
    return ronghe("merge", config, tmp_path / out, "--device", "cpu")


@pytest.mark.parametrize(("shards", "legacy"), [(1, False), (3, False), (1, True)])
def test_pickled_models_and_adapters_merge_as_safetensors_do(tmp_path, monkeypatch, shards, legacy):
    base, (expert,) = factory.write_family(tmp_path, SHAPE, experts=1)
    tensors = factory.read_tensors(base)
    factors = lora_tensors(tensors, modules_of(tensors, "q_proj"), 2)
    adapter = write_adapter(tmp_path / "adapter", factors, r=2)
    told = merge(tmp_path, "before", base, expert, f"{base}+{adapter}")
    assert told.returncode == 0, told.stderr
    for folder, parts in ((base, shards), (expert, 1), (adapter, 1)):
        pickle_weights(folder, parts, legacy)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    told = merge(tmp_path, "after", base, expert, f"{base}+{adapter}")
    assert told.returncode == 0, told.stderr
    assert list(temporary.iterdir()) == []  # no converted copy stays
    before, after = (
        (tmp_path / each / "model.safetensors").read_bytes() for each in ("before", "after")
    )
    assert before == after
    assert not list(base.glob("*.safetensors"))  # inputs stay what they are


@pytest.mark.parametrize("form", ["plain", "torch"])
def test_a_pickle_that_does_more_is_refused_and_not_run(tmp_path, form):
    base, (expert,) = factory.write_family(tmp_path, SHAPE, experts=1)
    trace = tmp_path / "trace"
    (expert / "model.safetensors").unlink()
    content = {"weight": Malice(trace)}
    if form == "torch":
        torch.save(content, expert / "pytorch_model.bin")
    else:
        (expert / "pytorch_model.bin").write_bytes(pickle.dumps(content))
    told = merge(tmp_path, "out", base, expert)
    assert told.returncode == 2
    assert "its pickled weights are refused, and nothing in them was run" in told.stderr
    assert not trace.exists()
    assert not (tmp_path / "out").exists()
    with (expert / "pytorch_model.bin").open("rb") as file:
        if form == "plain":
            pickle.load(file)  # so that the test is about a pickle that would have done it
            assert trace.exists()


def test_what_is_no_table_of_tensors_is_refused(tmp_path):
    base, (expert,) = factory.write_family(tmp_path, SHAPE, experts=1)
    (expert / "model.safetensors").unlink()
    for content, message in (
        ([1, 2], "it holds a list, and no table of tensors"),
        ({"a": 1}, "its entry 'a' is a int, and no tensor"),
    ):
        torch.save(content, expert / "pytorch_model.bin")
        assert message in merge(tmp_path, "out", base, expert).stderr
    (expert / "pytorch_model.bin").unlink()
    weights = {"weight_map": {"a": "../base/x.bin"}}
    (expert / "pytorch_model.bin.index.json").write_text(json.dumps(weights))
    told = merge(tmp_path, "out", base, expert)
    assert "shard '../base/x.bin' lies outside the folder" in told.stderr


def test_a_merge_leaves_no_converted_copy_behind(tmp_path):
    base, (expert,) = factory.write_family(tmp_path / "models", SHAPE, experts=1)
    pickle_weights(expert)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    config = tmp_path / "m.yaml"
    config.write_text(SUM.format(base=base) + EXPERT.format(model=expert))
    done = ronghe("merge", config, tmp_path / "out", environment={"TMPDIR": str(temporary)})
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
