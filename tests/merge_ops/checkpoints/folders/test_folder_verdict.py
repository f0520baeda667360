"""What a folder is: which weights are read, compared with transformers, and what is refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.folders.folder_facts import model_facts
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError
from orchestration.commands.models.readable_models import readable
from tests.models import checkpoint_factory as factory
from tests.models.verdict_folders import INDEX, SHAPE, index_only, verdict_of, write_old_shards


def facts_of(folder: Path):
    source = FolderSource(folder)
    return model_facts(source, read_folder(source))


def stale_index(folder: Path) -> None:
    write_old_shards(folder)
    (folder / "model-00001-of-00002.safetensors").unlink()


def stale_index_alone(folder: Path) -> None:
    write_old_shards(folder, 3)
    for shard in folder.glob("model-*"):
        shard.unlink()


def pickle_only(folder: Path) -> None:
    torch.save(factory.base_tensors(SHAPE, seed=5), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def pickle_and_a_stray(folder: Path) -> None:
    """transformers does not look at any other file of safetensors than its own."""
    pickle_only(folder)
    save_file({"v_head.weight": torch.ones(1, 32)}, folder / "value_head.safetensors")


def pickle_and_a_stale_index_of_pickles(folder: Path) -> None:
    pickle_only(folder)
    table = {"weight_map": {"model.norm.weight": "pytorch_model-00001-of-00001.bin"}}
    factory.write_json(folder / "pytorch_model.bin.index.json", table)


def old_pickle_beside(folder: Path) -> None:
    torch.save(factory.base_tensors(SHAPE, seed=5), folder / "pytorch_model.bin")


def variant_beside(folder: Path) -> None:
    old = factory.base_tensors(SHAPE, seed=5)
    save_file(old, folder / "model.fp16.safetensors", metadata={"format": "pt"})


def consolidated_beside(folder: Path) -> None:
    save_file({"tok_embeddings.weight": torch.ones(4, 4)}, folder / "consolidated.safetensors")


def training_beside(folder: Path) -> None:
    for name in ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth"):
        (folder / name).write_bytes(b"pickles of a training")
    (folder / "trainer_state.json").write_text("{}")
    (folder / "global_step5").mkdir()
    (folder / "global_step5" / "mp_rank_00_model_states.pt").write_bytes(b"x")


@pytest.mark.parametrize(
    ("spoil", "cautions"),
    [
        (stale_index, 1),
        (stale_index_alone, 1),
        (index_only, 0),
        (pickle_only, 0),
        (pickle_and_a_stray, 1),
        (pickle_and_a_stale_index_of_pickles, 1),
        (old_pickle_beside, 0),
        (variant_beside, 0),
        (consolidated_beside, 0),
        (training_beside, 0),
    ],
)
def test_the_weights_are_those_that_transformers_loads(folder, spoil, cautions):
    spoil(folder)
    verdict = verdict_of(folder)
    assert (verdict.kind, verdict.faults) == ("model", ())
    assert len(verdict.cautions) == cautions
    place = readable(folder)
    opened = open_checkpoint("m", FolderSource(place))
    loaded = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    assert opened.tensors.keys() == loaded.keys()
    for name, entry in opened.tensors.items():
        torch.testing.assert_close(
            load_file(place / entry.file)[name], loaded[name], rtol=0, atol=0
        )


def both_whole(folder: Path) -> None:
    write_old_shards(folder)


def two_pickled(folder: Path) -> None:
    pickle_only(folder)
    tensors = factory.base_tensors(SHAPE, seed=6)
    torch.save(tensors, folder / "pytorch_model-00001-of-00001.bin")
    table = {"weight_map": dict.fromkeys(tensors, "pytorch_model-00001-of-00001.bin")}
    factory.write_json(folder / "pytorch_model.bin.index.json", table)


def two_indexes(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    for stem in ("first", "second"):
        save_file({"a": torch.ones(2)}, folder / f"{stem}-00001-of-00001.safetensors")
        table = {"weight_map": {"a": f"{stem}-00001-of-00001.safetensors"}}
        factory.write_json(folder / f"{stem}.safetensors.index.json", table)


def shard_beside_the_index(folder: Path) -> None:
    """The index names two of three shards."""
    index_only(folder)
    for number in (1, 2):
        old = folder / f"model-0000{number}-of-00002.safetensors"
        old.rename(folder / f"model-0000{number}-of-00003.safetensors")
    save_file({"more": torch.ones(2)}, folder / "model-00003-of-00003.safetensors")
    text = (folder / INDEX).read_text().replace("of-00002", "of-00003")
    (folder / INDEX).write_text(text)


def adapter_beside(folder: Path) -> None:
    factors = {"base_model.model.model.layers.0.q_proj.lora_A.weight": torch.ones(2, 32)}
    save_file(factors, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text("{}")


def adapter_beside_a_pickle(folder: Path) -> None:
    pickle_only(folder)
    adapter_beside(folder)


def pickled_adapter_beside(folder: Path) -> None:
    torch.save({}, folder / "adapter_model.bin")


def pipeline_with_a_file(folder: Path) -> None:
    (folder / "model_index.json").write_text("{}")
    (folder / "unet").mkdir()
    save_file({"a": torch.ones(2)}, folder / "unet" / "diffusion_pytorch_model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (
            both_whole,
            "ambiguous",
            rf"sets of weights, model.safetensors and the shards of {INDEX}",
        ),
        (two_pickled, "ambiguous", "two sets of weights, pytorch_model.bin and the shards of pyt"),
        (
            two_indexes,
            "ambiguous",
            r"shards of first.safetensors.index.json and those of second",
        ),
        (shard_beside_the_index, "incomplete", "does not name model-00003-of-00003.safetensors"),
        (
            adapter_beside,
            "ambiguous",
            r"a model \(model.safetensors\) and as an adapter \(adapt",
        ),
        (adapter_beside_a_pickle, "ambiguous", r"as a model \(pytorch_model.bin\) and as an adapt"),
        (pickled_adapter_beside, "ambiguous", r"an adapter \(adapter_model.bin\); write 'base\+"),
        (pipeline_with_a_file, "ambiguous", r"a diffusers pipeline .* name a part .*\(unet/\)"),
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_by_both(folder, spoil, kind, message):
    spoil(folder)
    assert verdict_of(folder).kind == kind
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint("m", FolderSource(readable(folder)))


def test_a_file_that_is_named_is_taken_alone(folder):
    both_whole(folder)
    opened = open_checkpoint("m", FolderSource(folder, "model.safetensors"))
    assert set(opened.files) == {"model.safetensors"}


def test_a_full_model_with_a_left_adapter_config_is_a_model_with_a_caution(folder):
    (folder / "adapter_config.json").write_text("{}")
    opened = open_checkpoint("m", FolderSource(folder))
    (caution,) = opened.cautions
    assert caution.where == "model 'm'"
    assert "transformers with PEFT installed reads it as an adapter" in caution.problem
    assert caution.advice == "Remove adapter_config.json if its adapter was merged in"


def test_a_broken_download_beside_a_whole_model_is_no_fault(folder):
    place = folder / ".cache" / "huggingface" / "download"
    place.mkdir(parents=True)
    (place / "0a.incomplete").write_bytes(b"x")
    assert verdict_of(folder).mergeable


def test_lora_parts_that_belong_to_a_model_are_no_adapter(folder):
    """RWKV 7 has `w_lora`; Phi-4-multimodal keeps factors beside its weights, and says so."""
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "hidden_size": 2}))
    rwkv = {
        "model.layers.0.attn.w_lora.lora.0.weight": torch.ones(2, 2),
        "model.embeddings.weight": torch.ones(2, 2),
    }
    save_file(rwkv, folder / "model.safetensors")
    assert verdict_of(folder).kind == "model"
    assert verdict_of(folder).cautions == ()
    at = "model.layers.0.self_attn.qkv_proj"
    phi = {
        f"{at}.base_layer.weight": torch.ones(8, 8),
        f"{at}.lora_A.vision.weight": torch.ones(2, 8),
        f"{at}.lora_B.vision.weight": torch.ones(8, 2),
    }
    save_file(phi, folder / "model.safetensors")
    assert not verdict_of(folder).mergeable
    factory.edit_config(folder, vision_lora={"r": 2})
    assert verdict_of(folder).mergeable
    assert "merged one by one and not as products" in str(verdict_of(folder).cautions[0])


def test_the_verdict_is_plain_data(folder):
    stale_index(folder)
    document = json.loads(json.dumps(verdict_of(folder).to_json()))
    assert document["kind"] == "model"
    assert document["mergeable"] is True
    assert document["weights"] == ["model.safetensors"]
    assert document["passed_over"][INDEX] == "left from an older set of weights"
    assert document["cautions"][0]["advice"].startswith(f"Remove {INDEX}")


def test_the_facts_of_a_model_come_from_headers_and_config(tmp_path):
    base = factory.write_family(tmp_path, factory.BFLOAT16_QWEN2, experts=0).base
    facts = facts_of(base)
    assert facts is not None
    tensors = factory.read_tensors(base)
    assert facts.architectures == ("Qwen2ForCausalLM",)
    assert facts.model_type == "qwen2"
    assert facts.layers == {"model.layers": 3}
    assert facts.tensors == len(tensors)
    assert facts.parameters == sum(each.numel() for each in tensors.values())
    assert facts.nbytes == 2 * facts.parameters
    assert facts.dtypes == {"BF16": len(tensors)}
    assert facts.tie == "no head is stored: the embedding is the head"
    assert facts.vocabulary == ("tokenizer.json", "tokenizer_config.json")
    assert facts.quantization == "none"
    assert facts.prefix == ""
    factory.edit_config(base, quantization={"bits": 4, "group_size": 64})
    quantized = facts_of(base)
    assert quantized is not None
    assert quantized.quantization != "none"
