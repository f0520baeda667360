"""Gates of routers against transformers' own hidden states, and by hand."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from eval_ops.errors import CheckpointLoadError, NonFiniteError, PromptsError
from eval_ops.running.mixtures import gates_child, layer_walk
from eval_ops.running.mixtures.gates import measure_gates, route_prompts, shares_of, unpacked
from eval_ops.running.mixtures.layer_walk import Decoder, grouped

PROMPTS = [
    (["mint cools the lungs", "qi"], []),
    (["ginger warms.", "rhubarb calms the spleen, and more."], ["mint cools the lungs"]),
    (["ginseng warms qi!"], ["qi", "rhubarb."]),
]
SIZES = {"num_hidden_layers": 3, "tie_word_embeddings": False}
KINDS = {"llama": {}, "qwen3": {"head_dim": 16}, "qwen2": {}, "mistral": {"sliding_window": 4}}


@pytest.fixture(scope="module")
def bases(
    write_checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    return {
        kind: write_checkpoint(root / kind, 3, kind, **SIZES, **more)
        for kind, more in KINDS.items()
    }


def states_of(folder: Path, text: str) -> np.ndarray:
    """Hidden states that enter the layers, [layers, tokens, hidden], by transformers itself."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer((tokenizer.bos_token or "") + text, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        made = model(torch.tensor([ids]), output_hidden_states=True)
    return torch.stack(made.hidden_states[:-1])[:, 0].double().numpy()


def reference(folder: Path, average: bool) -> list[np.ndarray]:
    def mean(texts: list[str]) -> np.ndarray:
        states = [states_of(folder, text) for text in texts]
        return np.mean([s.mean(axis=1) if average else s[:, -1] for s in states], axis=0)

    rows = [mean(p) - mean(n) if n else mean(p) for p, n in PROMPTS]
    stacked = np.stack(rows, axis=1)  # [layers, experts, hidden]
    return list(stacked / np.linalg.norm(stacked, axis=-1, keepdims=True))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_gates_are_those_of_transformers_states(bases: dict[str, Path], kind: str) -> None:
    for mode in ("hidden", "hidden_avg"):
        gates = measure_gates(bases[kind], PROMPTS, mode)
        assert [each.shape for each in gates] == 3 * [(3, 32)]
        assert {each.dtype for each in gates} == {np.dtype(np.float32)}
        for measured, wanted in zip(
            gates, reference(bases[kind], mode == "hidden_avg"), strict=True
        ):
            np.testing.assert_allclose(measured, wanted, atol=1e-6)
    last = measure_gates(bases[kind], PROMPTS, "hidden_last")
    hidden = measure_gates(bases[kind], PROMPTS, "hidden")
    assert all(np.array_equal(a, b) for a, b in zip(last, hidden, strict=True))


def test_padding_never_counts(bases: dict[str, Path]) -> None:
    """The mean of two prompts of different length is that of each alone; padded ones' is not."""
    one, two = "qi", "rhubarb calms the spleen and the lungs"
    gates = measure_gates(bases["llama"], [([one, two], [])], "hidden_avg")
    by_hand = (states_of(bases["llama"], one).mean(1) + states_of(bases["llama"], two).mean(1)) / 2
    by_hand /= np.linalg.norm(by_hand, axis=-1, keepdims=True)
    np.testing.assert_allclose(np.stack(gates)[:, 0], by_hand, atol=1e-6)


def test_a_bos_token_stands_before_each_prompt(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bases["llama"], tmp_path / "bos")
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer.save_pretrained(folder)
    (tokens,) = Decoder(folder).tokens_of(["mint"]).values()
    (bare,) = Decoder(bases["llama"]).tokens_of(["mint"]).values()
    assert tokens == [tokenizer.bos_token_id, *bare]
    with_bos = measure_gates(folder, [(["mint"], [])], "hidden_avg")
    np.testing.assert_allclose(
        with_bos[0][0] * np.linalg.norm(states_of(folder, "mint")[0].mean(0)),
        states_of(folder, "mint")[0].mean(0),
        atol=1e-6,
    )


def test_layers_that_add_nothing_give_embeddings_by_hand(
    bases: dict[str, Path], tmp_path: Path
) -> None:
    """With outputs of zero every layer is entered by the embedding: here rows of the identity."""
    folder = shutil.copytree(bases["llama"], tmp_path / "identity")
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            tensor.zero_()
    embed = tensors["model.embed_tokens.weight"].zero_()
    by_text = Decoder(bases["llama"]).tokens_of(["mint", "qi", "mint qi"])
    mint, qi, both = by_text.values()
    embed[mint[-1], 0], embed[qi[-1], 1], embed[both[-1], 2] = 2.0, 3.0, 4.0
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    prompts = [(["mint"], []), (["qi", "mint qi"], ["mint"])]
    gates = measure_gates(folder, prompts, "hidden")
    length = np.sqrt(2**2 + 1.5**2 + 2**2)  # of (−2, 3/2, 4/2)
    for rows in gates:
        assert rows[0, :4].tolist() == [1, 0, 0, 0]
        np.testing.assert_allclose(rows[1, :3], np.array([-2, 1.5, 2]) / length, atol=1e-7)
        assert not rows[:, 3:].any()


def test_half_precision_is_measured_in_float32(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bases["qwen3"], tmp_path / "half")
    half = {n: t.bfloat16() for n, t in load_file(folder / "model.safetensors").items()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    gates = measure_gates(folder, PROMPTS, "hidden_avg")
    for measured, wanted in zip(gates, reference(folder, True), strict=True):
        np.testing.assert_allclose(measured, wanted, atol=1e-6)


def test_groups_of_prompts_change_nothing(
    bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = measure_gates(bases["qwen2"], PROMPTS, "hidden")
    monkeypatch.setattr(layer_walk, "MOST_TOKENS", 12)
    told: list[tuple[int, int]] = []
    parts = measure_gates(
        bases["qwen2"], PROMPTS, "hidden", tell=lambda done, of: told.append((done, of))
    )
    assert all(np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))
    assert told[-1] == (18, 18)  # 6 texts, each once, through 3 layers
    assert len(told) > 3
    assert list(grouped([[1] * 20, [1] * 6, [1] * 6, [1]])) == [[0], [1, 2], [3]]


def test_router_input_is_what_the_mlp_is_given(bases: dict[str, Path]) -> None:
    model: Any = AutoModelForCausalLM.from_pretrained(bases["llama"], dtype=torch.float32).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(bases["llama"])
    seen: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
    texts = ["mint cools", "ginger warms"]
    for text in texts:
        with torch.no_grad():
            model(torch.tensor([tokenizer(text)["input_ids"]]))
    means = torch.stack([each.mean(dim=0) for each in seen]).double().numpy().reshape(2, 3, -1)
    rows = means - means.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=-1, keepdims=True)
    gates = measure_gates(bases["llama"], [([text], []) for text in texts], "router_input")
    np.testing.assert_allclose(np.stack(gates, axis=1), rows, atol=2e-6)
    # Such gates send each prompt to its own moe_expert.
    shares = route_prompts(bases["llama"], texts, gates, 1)
    assert shares.shape == (2, 3, 2)
    np.testing.assert_allclose(shares.sum(axis=-1), 1.0)
    assert shares[0, :, 0].mean() > 0.5
    assert shares[1, :, 1].mean() > 0.5
    # With negative prompts these are subtracted in place of the mean: the difference here.
    against = measure_gates(bases["llama"], [(texts[:1], texts[1:])], "router_input")
    np.testing.assert_allclose(np.stack(against)[:, 0], np.stack(gates)[:, 0], atol=2e-6)


def test_shares_by_hand() -> None:
    rows = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    vectors = np.array([[np.log(3), 0.0], [0.0, np.log(4)]])
    # Products (log 3, 0, 0): softmax of the first two ¾, ¼; (0, log 4, 0): ⅕ and ⅘.
    np.testing.assert_allclose(shares_of(vectors, rows, 2), [0.475, 0.525, 0], atol=1e-7)
    np.testing.assert_allclose(shares_of(vectors, rows, 1), [0.5, 0.5, 0], atol=1e-7)


def test_the_child_answers_with_the_same_numbers(bases: dict[str, Path]) -> None:
    sent = {"folder": str(bases["llama"]), "device": "cpu", "threads": 1, "tokenizer_seconds": 0}
    prompts = [{"positive": p, "negative": n} for p, n in PROMPTS]
    asked = {**sent, "what": "measure", "mode": "hidden", "prompts": prompts}
    told: list[Any] = []
    made = gates_child.answer(asked, told.append)["gates"]
    gates = measure_gates(bases["llama"], PROMPTS, "hidden")
    for data, rows in zip(made, gates, strict=True):
        assert np.array_equal(unpacked(data), rows)
    assert told[-1] == [18, 18]
    asked = {**sent, "what": "route", "gates": made, "texts": ["qi"], "experts_per_token": 2}
    (shares,) = gates_child.answer(asked, told.append)["shares"]
    wanted = route_prompts(bases["llama"], ["qi"], gates, 2)[0]
    np.testing.assert_allclose(unpacked(shares), wanted, atol=1e-7)


def test_faults_of_prompts_are_told_at_once(bases: dict[str, Path]) -> None:
    with pytest.raises(PromptsError, match="prompts: 4 faults") as caught:
        measure_gates(bases["llama"], [([], ["a"]), (["b", " "], [""])], "cheap")
    text = str(caught.value)
    assert "gate_mode is 'cheap'; a model is run for hidden, hidden_last" in text
    assert "experts[0].positive_prompts is empty; cheap needs at least one text" in text
    assert "experts[1].positive_prompts[1] is empty; write a text" in text
    assert "experts[1].negative_prompts[0] is empty" in text
    with pytest.raises(PromptsError, match="experts is empty; gates have a row for each"):
        measure_gates(bases["llama"], [], "hidden")
    with pytest.raises(PromptsError, match=r"'qi qi .*' has [0-9]+ tokens; it must have 1 to 256"):
        measure_gates(bases["llama"], [(["qi " * 300], [])], "hidden")


def test_models_that_cannot_be_walked_are_refused(
    write_checkpoint: Callable[..., Path], bases: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(CheckpointLoadError, match=r"holds no config\.json"):
        measure_gates(tmp_path, [(["qi"], [])], "hidden")
    other = write_checkpoint(tmp_path / "other", 1, "gemma")
    with pytest.raises(PromptsError, match="is gemma; gates are measured on plain weights"):
        measure_gates(other, [(["qi"], [])], "hidden")
    gates = measure_gates(bases["llama"], [(["qi"], [])], "hidden")
    with pytest.raises(PromptsError, match="there are gates of 2 layers; the base has 3"):
        route_prompts(bases["llama"], ["qi"], gates[:2], 1)
    with pytest.raises(PromptsError, match=r"size is 32(?s:.)*token is 2; it must be 1 to 1"):
        route_prompts(bases["llama"], ["qi"], [each[:, :8] for each in gates], 2)


def test_nan_is_found_where_it_enters(bases: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(bases["llama"], tmp_path / "nan")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NonFiniteError, match="what enters layer 1 is NaN or infinite"):
        measure_gates(folder, [(["qi"], [])], "hidden")
