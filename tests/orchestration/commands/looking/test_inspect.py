"""`ronghe inspect`: what it prints, its JSON and its exit status."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.merges.merging import merge_in_process, ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)


@pytest.fixture
def base(tmp_path):
    return factory.write_family(tmp_path, SHAPE, experts=0).base


def test_a_model_is_told_with_its_facts(base):
    told = ronghe("inspect", base)
    assert told.returncode == 0, told.stderr
    assert f"{base}: model, a model: weights and a config.json" in told.stdout
    assert "LlamaForCausalLM" in told.stdout
    assert "reads model.safetensors (" in told.stdout
    assert told.stdout.endswith("can be merged\n")


def test_json_holds_the_verdict_and_the_facts(base):
    document = json.loads(ronghe("inspect", base, "--json").stdout)
    assert (document["format"], document["kind"], document["mergeable"]) == (1, "model", True)
    assert document["model"]["layers"] == {"model.layers": 1}
    assert document["model"]["tensors"] == len(factory.read_tensors(base))


def test_an_adapter_is_merged_with_its_base(base, tmp_path):
    tensors = factory.read_tensors(base)
    factors = lora_tensors(tensors, modules_of(tensors, "q_proj"), 2)
    adapter = write_adapter(tmp_path / "adapter", factors, r=2)
    told = ronghe("inspect", adapter)
    assert told.returncode == 0
    assert f"can be merged into its base, as 'base+{adapter}'" in told.stdout
    settings = json.loads((adapter / "adapter_config.json").read_text())
    factory.write_json(adapter / "adapter_config.json", {**settings, "peft_type": "LOHA"})
    told = ronghe("inspect", adapter)
    assert told.returncode == 1
    assert "peft_type is 'LOHA'; only LORA adapters can be merged" in told.stdout


def test_what_cannot_be_merged_has_status_1(base, tmp_path):
    factory.write_weights(base, factory.base_tensors(SHAPE, seed=7), 2)
    told = ronghe("inspect", base)
    assert told.returncode == 1
    assert "ambiguous" in told.stdout
    assert "holds two sets of weights, model.safetensors and the shards of" in told.stdout
    told = ronghe("inspect", tmp_path / "nowhere", "--json")
    assert told.returncode == 1
    assert json.loads(told.stdout)["kind"] == "empty"


def test_names_of_strangers_are_neither_markup_nor_control(tmp_path):
    folder = tmp_path / "[red]x[b]"
    folder.mkdir()
    save_file({"lora_unet_\x1b[31m[/x].alpha": torch.ones(1)}, folder / "a.safetensors")
    told = ronghe("inspect", folder)
    assert told.returncode == 0, told.stderr
    assert "kohya LoRA, an adapter, which is no model without its base" in told.stdout
    assert "[red]x[b]" in told.stdout
    assert "\x1b" not in told.stdout
    assert "\\x1b[31m[/x].alpha" in told.stdout


def test_a_wrapped_pickle_merges_as_its_table(base, tmp_path):
    """`{"state_dict": …}`, as trainers save it; with averaged weights beside, it is refused."""
    tensors = factory.read_tensors(base)
    wrapped = tmp_path / "run.ckpt"
    torch.save({"epoch": 3, "state_dict": tensors, "optimizer": {"state": {}}}, wrapped)
    assert ronghe("inspect", wrapped).returncode == 0
    config = tmp_path / "m.yaml"
    config.write_text(f"merge_method: passthrough\nmodels: [{{model: {wrapped}}}]\n")
    out = merge_in_process(config, tmp_path / "out")
    merged = factory.read_tensors(out)
    assert merged.keys() == tensors.keys()
    assert all(torch.equal(merged[name], value) for name, value in tensors.items())
    torch.save({"model": tensors, "ema": tensors}, tmp_path / "two.pt")
    config.write_text(f"merge_method: passthrough\nmodels: [{{model: {tmp_path / 'two.pt'}}}]\n")
    told = ronghe("merge", config, tmp_path / "more")
    assert "it holds several tables of tensors (ema, model); save the one" in told.stderr
