"""Prefixes of wrappers are taken off at opening; a body's prefix is matched."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.names.name_prefixes import body_renaming, wrapper_prefix
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, CompatibilityError
from merge_ops.sources.lora.adapters import open_adapter
from merge_ops.stream.block_reader import read_values
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, lora_tensors, write_adapter

LINEAR = "merge_method: linear\nmodels: [{{model: {0}}}, {{model: {1}}}]\nparameters: {{weight: 1}}"
PLAIN = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight", "lm_head.weight")


def inside(name: str, part: str) -> str:
    """A layer's name with a wrapper around the layer."""
    return name.replace("layers.0.", f"layers.0.{part}.")


@pytest.mark.parametrize(
    ("wrapped", "taken"),
    [
        ([f"_orig_mod.{name}" for name in PLAIN], "_orig_mod."),
        ([f"module.{name}" for name in PLAIN], "module."),
        ([f"module._orig_mod.{name}" for name in PLAIN], "module._orig_mod."),
        ([f"_orig_mod.module.{name}" for name in PLAIN], "_orig_mod.module."),
        ([f"_fsdp_wrapped_module.{name}" for name in PLAIN], "_fsdp_wrapped_module."),
        ([f"_forward_module.{name}" for name in PLAIN], "_forward_module."),
        ([f"model.{name}" for name in PLAIN], "model."),
        ([f"state_dict.model.{name}" for name in PLAIN], "state_dict.model."),
        ([f"base_model.model.{name}" for name in PLAIN], "base_model.model."),
        ([inside(name, "_orig_mod") for name in PLAIN], "_orig_mod."),
        (
            [inside(name, "_checkpoint_wrapped_module") for name in PLAIN],
            "_checkpoint_wrapped_module.",
        ),
        ([name.replace("model.", "model._orig_mod.") for name in PLAIN], "_orig_mod."),
        (["model.bert.embeddings.weight", "model.classifier.weight"], "model."),
    ],
)  # fmt: skip
def test_what_wrappers_leave_behind(wrapped, taken):
    assert wrapper_prefix(wrapped) == taken


@pytest.mark.parametrize(
    "names",
    [
        PLAIN,
        PLAIN[:2],  # a tied Llama: every name starts with `model.`
        ["module.a.weight", "head.weight"],  # a module of that name beside another one
        ["model.shared.weight", "model.encoder.layers.0.fc1.weight"],
        ["model.model.0.conv.weight", "model.model.1.conv.weight"],  # YOLO
        ["model.language_model.layers.0.x.weight", "model.visual.x.weight"],
        [f"{PREFIX}{PLAIN[1]}.lora_A.weight".replace(".weight.lora", ".lora")],
        ["blocks.0.module.weight"],
        [],
    ],
)
def test_names_that_are_their_own(names):
    assert wrapper_prefix(names) == ""


def wrap(folder: Path, before: str) -> Path:
    tensors = factory.read_tensors(folder)
    factory.rewrite_weights(folder, {before + name: each for name, each in tensors.items()})
    return folder


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("_orig_mod.", "_orig_mod."),
        ("module.", "module."),
        ("", "_orig_mod."),
        ("module._orig_mod.", ""),
        ("_fsdp_wrapped_module.", "model."),
    ],
)
def test_wrapped_models_give_the_average_and_load(tmp_path, first, second):
    from transformers import AutoModelForCausalLM

    base, (expert,) = factory.write_family(tmp_path, factory.LLAMA, experts=1)
    before = [factory.read_tensors(folder) for folder in (base, expert)]
    for folder, prefix in ((base, first), (expert, second)):
        wrap(folder, prefix)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(LINEAR.format(base, expert))
    out = merge_in_process(recipe, tmp_path / "out")
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for name, values in model.state_dict().items():
        mean = (before[0][name].double() + before[1][name].double()) / 2
        assert torch.allclose(values.double(), mean, atol=1e-7)


def test_a_caution_says_what_was_taken_off(tmp_path):
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0, shards=2)
    plain = open_checkpoint("base", FolderSource(base))
    wrap(base, "module._orig_mod.")
    found = open_checkpoint("base", FolderSource(base))
    assert set(found.tensors) == set(plain.tensors)
    assert not plain.cautions
    (caution,) = found.cautions
    assert "hold 'module._orig_mod.', which no loader expects, and it was taken off" in str(caution)
    assert "Save the inner model" in caution.advice


def test_two_tensors_of_one_name_are_refused(tmp_path):
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0)
    tensors = factory.read_tensors(base)
    factory.rewrite_weights(base, tensors | {"_orig_mod.model.norm.weight": torch.ones(64)})
    match = r"holds 'model.norm.weight' both plain and with the prefix of a wrapper \(_orig_mod.\)"
    with pytest.raises(CheckpointError, match=match):
        open_checkpoint("base", FolderSource(base))


def test_lightning_is_not_supposed_where_the_model_has_code_of_its_own(tmp_path):
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0)
    wrap(base, "model.")
    factory.edit_config(base, auto_map={"AutoModel": "modeling.Wrapped"})
    assert "model.lm_head.weight" in open_checkpoint("base", FolderSource(base)).tensors


# ---------------------------------------------------------------------------- a body's prefix


def test_a_prefix_is_matched_where_half_of_the_names_agree_then():
    body = [f"h.{n}.attn.weight" for n in range(4)]
    full = [f"transformer.{name}" for name in body]
    assert body_renaming(body, [*full, "lm_head.weight"]) == dict(zip(full, body, strict=True))
    assert body_renaming([*full, "score.weight"], body) == dict(zip(body, full, strict=True))
    assert not body_renaming(body, [*full[:1], "a.weight", "b.weight", "c.weight", "d.weight"])
    assert not body_renaming(body, [*full, *body[:1]])  # one name would be taken
    assert not body_renaming(body, [f"odd.{name}" for name in body], known_prefixes_only=True)


def gpt2(folder: Path, seed: int, prefix: bool, **extra: torch.Tensor) -> factory.Tensors:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=32, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    model.save_pretrained(folder)
    state = {k: v.clone() for k, v in model.state_dict().items() if k != "lm_head.weight"}
    named = state if prefix else {k.removeprefix("transformer."): v for k, v in state.items()}
    factory.write_weights(folder, named | extra)
    return state


@pytest.mark.parametrize("base_has", [False, True])
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_gpt2_with_and_without_its_prefix(tmp_path, base_has, method):
    from transformers import GPT2LMHeadModel

    mask = torch.ones(1, 1, 32, 32).tril()
    base = gpt2(tmp_path / "base", 0, base_has)
    extra = {"transformer.h.0.attn.bias" if not base_has else "h.0.attn.bias": mask}
    expert = gpt2(tmp_path / "expert", 1, not base_has, **extra)
    models = f"models: [{{model: {tmp_path}/base}}, {{model: {tmp_path}/expert}}]\n"
    recipe = tmp_path / "recipe.yaml"
    if method == "linear":
        recipe.write_text(f"merge_method: linear\n{models}parameters: {{weight: 1}}")
        share = 0.5
    else:
        parameters = "parameters: {weight: 1, density: 1, lambda: 0.25}"
        recipe.write_text(f"merge_method: ties\nbase_model: {tmp_path}/base\n{models}{parameters}")
        share = 0.25
    out = merge_in_process(recipe, tmp_path / "out")
    stored = load_file(out / "model.safetensors")
    assert any(name.startswith("transformer.") for name in stored) == base_has
    loaded, report = GPT2LMHeadModel.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"]
    for name, values in loaded.state_dict().items():
        if name in base:
            want = base[name].double() + share * (expert[name].double() - base[name].double())
            assert torch.allclose(values.double(), want, atol=1e-6), name


def test_bert_against_its_classifier_lacks_the_head_alone(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    config = BertConfig(
        vocab_size=32, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=24, max_position_embeddings=16,
    )  # fmt: skip
    BertModel(config).save_pretrained(tmp_path / "base")
    BertForSequenceClassification(config).save_pretrained(tmp_path / "expert")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(LINEAR.format(tmp_path / "base", tmp_path / "expert"))
    with pytest.raises(CompatibilityError) as refusal:
        merge_in_process(recipe, tmp_path / "out")
    (fault,) = refusal.value.faults
    assert "has 'classifier.bias', 'classifier.weight', which" in fault.problem


# ---------------------------------------------------------------------------- adapters


@pytest.mark.parametrize("base_has", [False, True])
@pytest.mark.parametrize("adapter_has", [False, True])
def test_an_adapter_finds_the_modules_of_a_base_without_the_prefix(tmp_path, base_has, adapter_has):
    base = gpt2(tmp_path / "base", 0, base_has)
    module = "transformer.h.0.mlp.c_fc"
    tensors = lora_tensors({f"{module}.weight": base[f"{module}.weight"].T}, [module], 4)
    down, up = tensors.values()
    called = module if adapter_has else module.removeprefix("transformer.")
    named = {name.replace(module, called): tensor for name, tensor in tensors.items()}
    patterns = {"alpha_pattern": {called: 2}, "rank_pattern": {f"^{called}": 4}}
    write_adapter(tmp_path / "lora", named, r=8, lora_alpha=8, fan_in_fan_out=True, **patterns)
    below = open_checkpoint("base", FolderSource(tmp_path / "base"))
    opened = open_adapter("base+lora", below, FolderSource(tmp_path / "lora"))
    assert opened.tensors.keys() == below.tensors.keys()
    (changed,) = opened.overlays
    assert changed == f"{module if base_has else module.removeprefix('transformer.')}.weight"
    source = opened.overlays[changed]
    values = read_values(source, 0, source.shape[0] * source.shape[1]).reshape(source.shape)
    want = base[f"{module}.weight"].double() + (2 / 4) * (up.double() @ down.double()).T
    assert torch.allclose(values.double(), want, atol=1e-6)


@pytest.mark.parametrize("wrapper", ["_orig_mod.", "_fsdp_wrapped_module."])
@pytest.mark.parametrize("where", ["front", "inside"])
def test_an_adapter_of_a_wrapped_model_fits(tmp_path, wrapper, where):
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0)
    module = "model.layers.1.self_attn.q_proj"
    tensors = lora_tensors(factory.read_tensors(base), [module], 4)
    old, new = (
        (PREFIX, wrapper + PREFIX) if where == "front" else ("layers.1.", f"layers.1.{wrapper}")
    )
    tensors = {name.replace(old, new): each for name, each in tensors.items()}
    named = {"target_modules": ["q_proj"]} if where == "front" else {}
    write_adapter(tmp_path / "lora", tensors, r=4, **named)
    below = open_checkpoint("base", FolderSource(base))
    opened = open_adapter("base+lora", below, FolderSource(tmp_path / "lora"))
    assert list(opened.overlays) == [f"{module}.weight"]


def test_an_adapter_on_a_quantized_base_is_refused_by_that(tmp_path):
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0)
    module = "model.layers.1.self_attn.q_proj"
    tensors = factory.read_tensors(base)
    write_adapter(tmp_path / "lora", lora_tensors(tensors, [module], 4), r=4)
    codes = torch.zeros(2048, 1, dtype=torch.uint8)
    extra = {f"{module}.weight": codes, f"{module}.weight.absmax": torch.ones(32)}
    factory.rewrite_weights(base, tensors | extra)
    below = open_checkpoint("base", FolderSource(base))
    with pytest.raises(CompatibilityError, match=r"base is quantized \(bitsandbytes, 4 bits, as"):
        open_adapter("base+lora", below, FolderSource(tmp_path / "lora"))
