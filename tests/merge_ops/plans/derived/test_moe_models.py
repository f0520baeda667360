"""Mixtures of experts: what transformers computes with them, and what is said of what cannot be."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from merge_ops.checkpoints import FolderSink
from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.jobs.assembly import merge
from merge_ops.plans.plan import Plan
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes import check_recipe
from merge_ops.stream.stream import StreamSettings
from orchestration.commands.models.local_models import open_models
from tests.models.checkpoint_factory import edit_config, read_tensors, rewrite_weights
from tests.models.dense_models import KINDS, PROMPTS, logits_of, write_dense, write_dense_family

EXACT = 3e-6  # float32, other kernels


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    root = tmp_path_factory.mktemp("dense")
    return {kind: write_dense_family(root / kind, kind, 3) for kind in KINDS}


def planned(document: dict, gates: object = None) -> Plan:
    recipe = check_recipe(document, "mixture", "mixture.yaml")
    opened = open_models(recipe.subject, recipe.referenced_models)
    return plan_merge(recipe, opened, gates=gates)  # type: ignore[arg-type]


def made(out: Path, document: dict, gates: object = None) -> Path:
    plan = planned(document, gates)
    merge(plan, {"default": FolderSink(out)}, StreamSettings(threads=2, device="cpu"))
    return out


def of(base: Path, *experts: Path, **keys: object) -> dict:
    entries = [{"source_model": str(each)} for each in experts]
    for entry, prompt in zip(entries, PROMPTS, strict=False):
        if keys.get("gate_mode") != "random":
            entry["positive_prompts"] = [prompt]  # type: ignore[assignment]
    return {"base_model": str(base), "experts": entries, **keys}


@pytest.mark.parametrize("kind", KINDS)
def test_equal_experts_are_the_dense_model(families, tmp_path, kind):
    base = families[kind][0]
    noiseless = of(base, base, base, base, gate_mode="random", seed=3)
    out = made(tmp_path / "out", noiseless)
    assert torch.allclose(logits_of(out), logits_of(base), atol=EXACT)
    config = json.loads((out / "config.json").read_text())
    expected = {"qwen2": "qwen2_moe", "qwen3": "qwen3_moe"}.get(kind, "mixtral")
    assert (config["model_type"], config["num_experts_per_tok"]) == (expected, 2)
    names = read_tensors(out)
    module = "block_sparse_moe.experts.2.w2" if expected == "mixtral" else "mlp.experts.2.down_proj"
    assert f"model.layers.1.{module}.weight" in names


def gates_for(rows: np.ndarray) -> dict[int, np.ndarray]:
    return {layer: rows.astype(np.float32) for layer in range(2)}


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_one_expert_for_each_token_is_that_expert_and_a_permutation_changes_nothing(
    families, tmp_path, kind
):
    base, one, two, _ = families[kind]
    recipe = of(base, one, two, experts_per_token=1)
    rows = np.zeros((2, 32))
    alone = made(tmp_path / "alone", of(base, two, experts_per_token=1), gates_for(rows[:1]))
    tensors = read_tensors(base)
    other = read_tensors(two)
    mixed = {name: other[name] if ".mlp." in name else each for name, each in tensors.items()}
    dense = write_dense(tmp_path / "dense", kind)
    rewrite_weights(dense, mixed)
    assert torch.allclose(logits_of(alone), logits_of(dense), atol=EXACT)
    drawn = np.random.default_rng(0).normal(size=(2, 32))
    both = made(tmp_path / "both", recipe, gates_for(drawn))
    swapped = of(base, two, one, experts_per_token=1)
    turned = made(tmp_path / "turned", swapped, gates_for(drawn[::-1]))
    assert torch.allclose(logits_of(both), logits_of(turned), atol=EXACT)


def test_gates_of_zero_give_the_mean_and_a_residual_scale_of_zero_gives_attention_alone(
    families, tmp_path
):
    base, one, two, _ = families["llama"]
    mean = made(tmp_path / "mean", of(base, one, two), gates_for(np.zeros((2, 32))))
    recipe = of(base, one, two)
    recipe["experts"][0]["residual_scale"] = 2.0
    recipe["experts"][1]["residual_scale"] = 0.0
    first = made(tmp_path / "first", recipe, gates_for(np.zeros((2, 32))))
    # ½ (2 f₁ + 0 f₂) = f₁, and ½ (f₁ + f₂) is another one
    dense = write_dense(tmp_path / "dense", "llama", 1)
    assert torch.allclose(logits_of(first), logits_of(dense), atol=EXACT)
    assert not torch.allclose(logits_of(mean), logits_of(dense), atol=1e-3)
    recipe["experts"][0]["residual_scale"] = 0.0
    nothing = made(tmp_path / "nothing", recipe, gates_for(np.ones((2, 32))))
    tensors = read_tensors(dense)
    silent = {n: each * 0 if "down_proj" in n else each for n, each in tensors.items()}
    rewrite_weights(dense, silent)
    assert torch.allclose(logits_of(nothing), logits_of(dense), atol=EXACT)


def test_a_shared_expert_without_prompts_is_always_on(families, tmp_path):
    base, one, _, _ = families["mistral"]
    recipe = of(base, one, one, gate_mode="cheap_embed")
    recipe["experts"][0]["residual_scale"] = recipe["experts"][1]["residual_scale"] = 0.0
    recipe["experts"][1]["noise_scale"] = 0.5
    recipe["shared_experts"] = [{"source_model": str(one)}]
    out = made(tmp_path / "out", recipe, gates_for(np.ones((2, 32))))
    dense = write_dense(tmp_path / "dense", "mistral", 1)
    assert torch.allclose(logits_of(out), logits_of(dense), atol=EXACT)
    config = json.loads((out / "config.json").read_text())
    assert (config["model_type"], config["num_experts_per_tok"]) == ("qwen2_moe", 2)
    deepseek = planned({**recipe, "architecture": "deepseek"}, gates_for(np.ones((2, 32))))
    assert deepseek.config["model_type"] == "deepseek"
    assert deepseek.config["n_shared_experts"] == 1
    names = {step.output.name for step in deepseek.steps}
    assert "model.layers.0.mlp.shared_experts.up_proj.weight" in names
    assert any("no class of transformers" in each.problem for each in deepseek.cautions)


@pytest.mark.parametrize("shared", [True, False])
def test_a_deepseek_is_what_its_own_code_computes(families, tmp_path, shared):
    """Against our default, which transformers loads: what differs is the form alone."""
    from tests.remote_code.modeling_deepseek import DeepseekForCausalLM

    base, one, two, three = families["llama"]
    recipe = of(base, one, two)
    recipe |= {"shared_experts": [{"source_model": str(three)}]} if shared else {}
    torch.manual_seed(3)
    gates = gates_for(torch.randn(2, 32).numpy())
    usual = made(tmp_path / "usual", recipe, gates)
    deepseek = made(tmp_path / "deepseek", {**recipe, "architecture": "deepseek"}, gates)
    kind = json.loads((usual / "config.json").read_text())["model_type"]
    assert kind == ("qwen2_moe" if shared else "mixtral")
    loaded: Any = DeepseekForCausalLM.from_pretrained(
        deepseek, dtype=torch.float32, output_loading_info=True
    )
    model, info = loaded
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.no_grad():
        found = model(torch.arange(20)[None] * 7 % 250).logits
    assert torch.allclose(found, logits_of(usual), atol=EXACT)
    config = json.loads((deepseek / "config.json").read_text())
    del config["auto_map"]
    (deepseek / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="model type `deepseek` but Transformers does not"):
        logits_of(deepseek)


def test_noise_and_drawn_gates_follow_the_seed_for_any_block(families, tmp_path):
    base, one, two, _ = families["qwen2"]
    recipe = of(base, one, two, gate_mode="random", seed=5)
    recipe["experts"][1]["noise_scale"] = 0.01
    plan = planned(recipe)
    outs = []
    for number, block in enumerate((64, 1 << 16)):
        sink = FolderSink(tmp_path / str(number))
        merge(plan, {"default": sink}, StreamSettings(threads=2, device="cpu", block=block))
        outs.append(read_tensors(tmp_path / str(number)))
    assert all(torch.equal(each, outs[1][name]) for name, each in outs[0].items())
    name = "model.layers.0.mlp.experts.1.up_proj.weight"
    noise = outs[0][name] - read_tensors(two)["model.layers.0.mlp.up_proj.weight"]
    assert 0.009 < float(noise.std()) < 0.011
    gates = outs[0]["model.layers.1.mlp.gate.weight"]
    assert 0.6 < float(gates.std()) < 1.4
    other = made(tmp_path / "other", {**recipe, "seed": 6})
    assert not torch.equal(read_tensors(other)["model.layers.1.mlp.gate.weight"], gates)
    uniform = made(tmp_path / "uniform", {**recipe, "gate_mode": "uniform_random"})
    rows = read_tensors(uniform)["model.layers.1.mlp.gate.weight"]
    assert 0.1 < float(rows.abs().max()) <= 32**-0.5


def test_without_gates_it_is_planned_and_neither_digested_nor_merged(families, tmp_path):
    base, one, two, _ = families["llama"]
    plan = planned(of(base, one, two))
    assert [each.name for each in plan.checkpoints] == [str(base), str(one), str(two)]
    with pytest.raises(
        RecipeError, match="gate_mode is 'hidden', and its numbers were not measured"
    ):
        merge(plan, {"default": FolderSink(tmp_path)}, StreamSettings(threads=1, device="cpu"))
    with pytest.raises(CompatibilityError, match=r"gates of layer 1 are missing; they must be \[2"):
        planned(of(base, one, two), {0: np.ones((2, 32), np.float32)})


def test_the_digest_covers_the_gates(families):
    base, one, two, _ = families["llama"]
    digests = []
    for value in (1.0, 1.0, 2.0):
        plan = planned(of(base, one, two), gates_for(np.full((2, 32), value)))
        places = {each.source: str(n) for n, each in enumerate(plan.checkpoints)}
        digests.append(plan.with_digests(places).outputs[0].digest)
    assert digests[0] == digests[1] != digests[2]
    assert digests[0] is not None


def test_models_that_do_not_fit_are_all_named(families, tmp_path):
    base = families["llama"][0]
    wide = write_dense(tmp_path / "wide", "llama", intermediate_size=64)
    deep = write_dense(tmp_path / "deep", "llama", num_hidden_layers=3)
    flat = write_dense(tmp_path / "flat", "llama", num_hidden_layers=1)
    heads = write_dense(tmp_path / "heads", "llama", num_attention_heads=2)
    biased = write_dense(tmp_path / "biased", "llama", mlp_bias=True)
    other = families["qwen3"][1]
    bad = of(base, wide, deep, flat, heads, biased, other, gate_mode="random")
    with pytest.raises(CompatibilityError) as raised:
        planned(bad)
    told = str(raised.value)
    for words in (
        "have one hidden and intermediate size",
        "and 5 more",
        f"{deep} has 'model.layers.2.",
        f"{flat} lacks 'model.layers.1.mlp",
        "num_attention_heads 2",
        f"{biased} has 'model.layers.0.mlp.",
        "which no moe_expert can hold",
        "has model_type 'qwen3', and",
    ):
        assert words in told, (words, told)


def test_another_vocabulary_is_a_caution_that_says_whose_tokens_a_mixture_has(families, tmp_path):
    base, one = families["llama"][:2]
    longer = write_dense(tmp_path / "longer", "llama", 2, vocab_size=300)
    (told,) = planned(of(base, one, longer)).cautions
    assert str(told) == (
        f"{longer} has another vocabulary than {base}: a mixture has the base's tokens, which"
        f" {longer} was not trained on"
    )


def test_what_the_base_has_and_a_family_cannot_hold_is_refused(families, tmp_path):
    biased = write_dense(tmp_path / "biased", "llama", attention_bias=True)
    one = families["llama"][1]
    # Who is told of a family that holds biases is not told of it in vain: it has none for outputs.
    with pytest.raises(
        CompatibilityError, match=r"k_proj.bias.* which Mixtral cannot hold; and no"
    ):
        planned(of(biased, one, one, gate_mode="random"))
    tensors = read_tensors(biased)
    few = write_dense(tmp_path / "few", "llama", attention_bias=True)
    rewrite_weights(few, {n: each for n, each in tensors.items() if not n.endswith("o_proj.bias")})
    with pytest.raises(CompatibilityError, match=r"cannot hold; `architecture: qwen` keeps those"):
        planned(of(few, one, one, gate_mode="random"))
    assert planned(of(few, one, one, gate_mode="random", architecture="qwen moe"))
    shared = {"shared_experts": [{"source_model": str(families["qwen3"][2])}]}
    with pytest.raises(CompatibilityError, match="shared_experts are for llama, mistral and qwen2"):
        planned({**of(families["qwen3"][0], one, one, gate_mode="random"), **shared})
    edit_config(biased, model_type="gemma2")
    with pytest.raises(CompatibilityError, match=r"has model_type 'gemma2'.* mixtures are made of"):
        planned(of(biased, one, one, gate_mode="random"))
    bare = write_dense(tmp_path / "bare", "llama")
    for file in bare.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(CompatibilityError, match="has no tokenizer beside its weights, which prom"):
        planned(of(bare, *families["llama"][1:3]))
    assert planned(of(bare, *families["llama"][1:3], gate_mode="random")).cautions == ()
    qwen = of(families["qwen2"][0], *families["qwen2"][1:], architecture="mixtral")
    with pytest.raises(CompatibilityError, match="architecture is 'mixtral', which is not made of"):
        planned({**qwen, "gate_mode": "random"})
