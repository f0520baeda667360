"""The walk through a mixture against transformers, and its statistics against float64."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval_ops.errors import CheckpointLoadError, NonFiniteError, PromptsError
from eval_ops.running.mixtures import layer_walk
from eval_ops.running.mixtures.moe_saliency import Saliency, measure_moe, packed, unpacked
from eval_ops.running.mixtures.moe_walk import MixtureDecoder
from tests.models.checkpoint_factory import edit_config
from tests.models.moe_models import other_layout
from tests.models.moe_saliency import TEXTS, write_mixture

KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "qwen2_moe": {"norm_topk_prob": False},
    "qwen3_moe": {"norm_topk_prob": True, "mlp_only_layers": [0]},
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("mixtures")
    made = {kind: write_mixture(root / kind, kind, **more) for kind, more in KINDS.items()}
    return {**made, "fused": other_layout(made["mixtral"], root / "fused")}


def loaded(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, experts_implementation="eager"
    ).eval()


def tokens_of(folder: Path) -> list[list[int]]:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    begin = tokenizer.bos_token or ""
    return [tokenizer(begin + text, add_special_tokens=False)["input_ids"] for text in TEXTS]


@pytest.mark.parametrize("kind", ["mixtral", "qwen2_moe", "qwen3_moe", "fused"])
def test_the_walk_says_what_transformers_says(models: dict[str, Path], kind: str) -> None:
    decoder, model = MixtureDecoder(models[kind]), loaded(models[kind])
    prompts = tokens_of(models[kind])
    states = decoder.observe(prompts, Saliency(decoder.experts, decoder.hidden))
    for tokens, last in zip(prompts, states, strict=True):
        with torch.no_grad():
            wanted = model(torch.tensor([tokens])).logits[0]
            said = model.lm_head(model.model.norm(last))
        assert torch.allclose(said, wanted, atol=2e-5)


def reference(folder: Path) -> dict[int, dict[str, np.ndarray]]:
    """The statistics in float64 by plain formulas, from what transformers gives each MLP."""
    model, found = loaded(folder, torch.float64), {}
    config = model.config
    for layer, module in enumerate(model.model.layers):
        if not hasattr(module.mlp, "experts"):
            continue
        seen: list[torch.Tensor] = []
        hook = module.mlp.register_forward_pre_hook(lambda _, given, seen=seen: seen.append(given))
        with torch.no_grad():
            for tokens in tokens_of(folder):
                model(torch.tensor([tokens]))
        hook.remove()
        x = torch.cat([each[0][0] for each in seen]).double().numpy()
        gate, experts = module.mlp.gate.weight.double().numpy(force=True), module.mlp.experts
        logits = x @ gate.T
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        chosen = np.argsort(-shares, axis=1)[:, : config.num_experts_per_tok]
        mask = np.zeros_like(shares)
        np.put_along_axis(mask, chosen, 1.0, axis=1)
        weights = shares * mask
        if config.model_type == "mixtral" or config.norm_topk_prob:
            weights /= weights.sum(axis=1, keepdims=True)
        outputs = []
        for expert in range(len(gate)):
            both = x @ experts.gate_up_proj[expert].double().numpy(force=True).T
            g, up = np.split(both, 2, axis=1)
            down = experts.down_proj[expert].double().numpy(force=True)
            outputs.append((g / (1 + np.exp(-g)) * up) @ down.T)
        norms = np.stack([np.linalg.norm(each, axis=1) for each in outputs], axis=1)
        count, means = mask.sum(axis=0), np.stack([each.mean(axis=0) for each in outputs])
        lengths = np.linalg.norm(logits, axis=0)
        found[layer] = {
            "tokens": count,
            "weights": weights.sum(axis=0),
            "saliency": (weights * norms).sum(axis=0) / np.maximum(count, 1),
            "distances": np.linalg.norm(means[:, None] - means[None], axis=-1),
            "similarity": logits.T @ logits / np.outer(lengths, lengths),
        }
    return found


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_statistics_are_those_of_plain_formulas_in_float64(
    models: dict[str, Path], kind: str
) -> None:
    measured, wanted = measure_moe(models[kind], TEXTS), reference(models[kind])
    assert sorted(measured.layers) == sorted(wanted) == ([1] if kind == "qwen3_moe" else [0, 1])
    assert measured.total == sum(map(len, tokens_of(models[kind])))
    for layer, arrays in measured.layers.items():
        assert arrays["tokens"].tolist() == wanted[layer]["tokens"].tolist()
        assert arrays["tokens"].sum() == measured.total * measured.chosen
        for part, values in arrays.items():
            np.testing.assert_allclose(values, wanted[layer][part], atol=3e-6, rtol=2e-5)


def test_both_layouts_groups_and_neighbours_give_the_same(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    whole = measure_moe(models["mixtral"], TEXTS, tell=lambda *done: told.append(done))
    assert told[-1] == (8, 8)
    monkeypatch.setattr(layer_walk, "MOST_TOKENS", 12)
    for folder in (models["mixtral"], models["fused"]):
        again = measure_moe(folder, TEXTS)
        for layer, arrays in whole.layers.items():
            for part, values in arrays.items():
                assert np.array_equal(again.layers[layer][part], values)
    alone = [measure_moe(models["mixtral"], [text]) for text in TEXTS]
    for layer, arrays in whole.layers.items():
        for part in ("tokens", "weights"):
            summed = sum(each.layers[layer][part] for each in alone)
            np.testing.assert_allclose(arrays[part], summed, rtol=1e-12)
    travelled = unpacked(json.loads(json.dumps(packed(whole.layers))))
    for layer, arrays in whole.layers.items():
        assert all(np.array_equal(travelled[layer][part], arrays[part]) for part in arrays)


def test_saliency_by_hand() -> None:
    """Two tokens, three moe_experts: norms 5 and 2 with weights ½ and ¼; the last never chosen."""
    sums = Saliency(3, 2)
    logits = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, 0.0]])
    sums.routed(4, logits, weights, weights > 0)
    sums.answered(4, 0, weights[:, 0], torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    sums.answered(4, 1, weights[:, 1], torch.tensor([[9.0, 9.0], [0.0, 2.0]]))
    sums.answered(4, 2, weights[:, 2], torch.tensor([[0.0, 0.0], [0.0, 0.0]]))
    (arrays,) = sums.layers(2).values()
    assert arrays["tokens"].tolist() == [2, 1, 0]
    assert arrays["weights"].tolist() == [1.5, 0.25, 0]
    assert arrays["saliency"].tolist() == [(1 * 1 + 0.5 * 5) / 2, 0.25 * 2, 0]
    # Means are (2, 2), (4.5, 5.5) and (0, 0); logits as columns (1, 1), (0, 1), (0, 0).
    np.testing.assert_allclose(arrays["distances"][0], [0, np.hypot(2.5, 3.5), np.sqrt(8)])
    np.testing.assert_allclose(arrays["similarity"][0], [1, 1 / np.sqrt(2), 0])


def test_what_cannot_be_measured_is_said(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(PromptsError, match="there is no text; moe_experts are measured on some"):
        measure_moe(models["mixtral"], [])
    with pytest.raises(PromptsError, match="text 2 is empty"):
        measure_moe(models["mixtral"], ["a", " "])
    folder = write_mixture(tmp_path / "m", "qwen2_moe")
    tensors = load_file(folder / "model.safetensors")

    def save(changed: dict[str, torch.Tensor]) -> None:
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})

    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    save({key: each for key, each in tensors.items() if key != name})
    with pytest.raises(CheckpointLoadError, match="has no 'moe_expert 3 of layer 1', which its"):
        measure_moe(folder, TEXTS)
    save({**tensors, name: tensors[name][:, :-1].contiguous()})
    with pytest.raises(CheckpointLoadError, match="moe_expert 3 of layer 1 has the shapes"):
        measure_moe(folder, TEXTS)
    norm = "model.layers.0.input_layernorm.weight"
    save({**tensors, norm: torch.full_like(tensors[norm], torch.nan)})
    with pytest.raises(NonFiniteError, match="what enters layer 1 is NaN or infinite"):
        measure_moe(folder, TEXTS)
    save({**tensors, norm: tensors[norm][:-1].clone()})
    with pytest.raises(CheckpointLoadError, match=r"wants \(32,\) for 'input_layernorm.weight'"):
        measure_moe(folder, TEXTS)
    edit_config(folder, num_experts=5)
    save(tensors)
    with pytest.raises(CheckpointLoadError, match=r"a router of \[6, 32\] in layer 0"):
        measure_moe(folder, TEXTS)
    edit_config(folder, model_type="qwen2")
    with pytest.raises(PromptsError, match="is qwen2; moe_experts are measured in plain weights"):
        measure_moe(folder, TEXTS)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointLoadError, match="its weights cannot be read"):
        measure_moe(folder, TEXTS)
