"""`moe:` steps: fewer moe_experts a layer, as transformers reads them; laws and refusals."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from merge_ops.arrangement.mixtures.fewer_choice import groups_of
from merge_ops.calibration.moe_statistics import (
    LayerStatistics,
    MoeStatistics,
    write_moe_statistics,
)
from merge_ops.errors import CompatibilityError, MissingModelError, StatisticsError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes import check_recipe, load_steps
from orchestration.commands.models.input_digests import prove_models
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import edit_config
from tests.models.moe_models import PARTS, TOKENS, logits, other_layout
from tests.models.moe_saliency import write_mixture, write_statistics

KINDS: dict[str, dict[str, Any]] = {
    "mixtral": {},
    "qwen2_moe": {"norm_topk_prob": True},
    "qwen3_moe": {"norm_topk_prob": True, "mlp_only_layers": [0]},
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture of each kind, and the statistics of each."""
    root = tmp_path_factory.mktemp("mixtures")
    for kind, more in KINDS.items():
        write_statistics(root / f"{kind}.st", write_mixture(root / kind, kind, **more))
    write_statistics(root / "fused.st", other_layout(root / "mixtral", root / "fused"))
    return root


def recipe_file(tmp_path: Path, model: Path, statistics: Path, **table: Any) -> Path:
    table = {"keep": 3, "method": "reap", "statistics": str(statistics), **table}
    path = tmp_path / f"{model.name}-fewer.yaml"
    path.write_text(json.dumps({"moe": table, "models": [{"model": str(model)}]}))
    return path


def made(tmp_path: Path, model: Path, statistics: Path, **table: Any) -> Path:
    config = recipe_file(tmp_path, model, statistics, **table)
    return merge_in_process(config, tmp_path / f"{model.name}-{len(list(tmp_path.iterdir()))}")


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def expert(tensors: Mapping[str, torch.Tensor], kind: str, layer: int, number: int) -> list:
    block = "block_sparse_moe" if kind == "mixtral" else "mlp"
    parts = PARTS.get(kind, ("gate_proj", "up_proj", "down_proj"))
    at = f"model.layers.{layer}.{block}"
    names = [f"{at}.experts.{number}.{part}.weight" for part in parts]
    return [*(tensors[name] for name in names), tensors[f"{at}.gate.weight"][number]]


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("method", ["reap", "hc_smoe"])
def test_what_is_kept_is_what_it_was(root: Path, tmp_path: Path, kind: str, method: str) -> None:
    statistics = write_statistics(tmp_path / "s", root / kind)
    out = made(tmp_path, root / kind, tmp_path / "s", method=method)
    before, after = tensors_of(root / kind), tensors_of(out)
    config = json.loads((out / "config.json").read_text())
    assert {config.get(key, 3) for key in ("num_experts", "num_local_experts")} == {3}
    assert config["num_experts_per_tok"] == 2
    for layer, each in statistics.layers.items():
        groups = groups_of(each, 3, method)
        for slot, group in enumerate(groups):
            *matrices, row = expert(after, kind, layer, slot)
            for part, matrix in enumerate(matrices):
                wanted = sum(
                    share * expert(before, kind, layer, member)[part].double()
                    for member, share in group
                )
                assert torch.equal(matrix, wanted.float())
            assert torch.equal(row, expert(before, kind, layer, group[0][0])[3])
    others = [name for name in before if ".experts." not in name and ".gate." not in name]
    assert all(torch.equal(before[name], after[name]) for name in others)
    assert logits(out).isfinite().all()


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("method", ["reap", "frequency", "hc_smoe", "m_smoe"])
def test_keeping_all_keeps_every_byte(root: Path, tmp_path: Path, kind: str, method: str) -> None:
    out = made(tmp_path, root / kind, root / f"{kind}.st", method=method, keep=6)
    written, own = (at / "model.safetensors" for at in (out, root / kind))
    assert written.read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("method", "router"),
    [("reap", None), ("m_smoe", "first"), ("m_smoe", "mean"), ("hc_smoe", "all")],
)
def test_a_fused_file_stays_fused_and_says_the_same(
    root: Path, tmp_path: Path, method: str, router: str | None
) -> None:
    table = {"method": method, **({"router": router} if router else {})}
    single = made(tmp_path, root / "mixtral", root / "mixtral.st", **table)
    fused = made(tmp_path, root / "fused", root / "fused.st", **table)
    count = 6 if router == "all" else 3
    shapes = {name: tuple(each.shape) for name, each in tensors_of(fused).items()}
    assert shapes["model.layers.0.mlp.experts.gate_up_proj"] == (count, 48, 32)
    assert not any(".experts.0." in name for name in shapes)
    assert torch.equal(logits(fused), logits(single))


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_what_no_token_chose_is_left_out_without_a_trace(
    root: Path, tmp_path: Path, kind: str
) -> None:
    """On texts that never chose some moe_experts the logits stay, for weights are renormalised."""
    chosen: dict[int, set[int]] = {}
    model: Any = AutoModelForCausalLM.from_pretrained(
        root / kind, dtype=torch.float32, experts_implementation="eager"
    )
    hooks = [
        module.mlp.gate.register_forward_hook(
            lambda _, __, out, layer=layer: chosen.setdefault(layer, set()).update(
                out[2].unique().tolist()
            )
        )
        for layer, module in enumerate(model.model.layers)
        if hasattr(module.mlp, "gate")
    ]
    few = TOKENS[:1, :2]
    with torch.no_grad():
        wanted = model(few).logits
    for hook in hooks:
        hook.remove()
    keep = max(len(each) for each in chosen.values())
    assert keep < 6
    statistics = write_statistics(tmp_path / "s", root / kind)
    layers = {
        layer: LayerStatistics(
            tokens=np.array([float(number in chosen[layer]) for number in range(6)]),
            weights=each.weights,
            saliency=each.saliency,
            distances=each.distances,
            similarity=each.similarity,
        )
        for layer, each in statistics.layers.items()
    }
    write_moe_statistics(
        tmp_path / "s", MoeStatistics(layers, statistics.model, "k", statistics.total, 2)
    )
    out = made(tmp_path, root / kind, tmp_path / "s", method="frequency", keep=keep)
    smaller: Any = AutoModelForCausalLM.from_pretrained(
        out, dtype=torch.float32, experts_implementation="eager"
    )
    with torch.no_grad():
        assert torch.allclose(smaller(few).logits, wanted, atol=1e-6)


def doubled(root: Path, kind: str, folder: Path) -> Path:
    """The mixture with a twin of every moe_expert behind it, row of the router included."""
    folder.mkdir()
    for file in (root / kind).iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors, made = tensors_of(root / kind), {}
    for name, tensor in tensors.items():
        if ".experts." not in name:
            made[name] = torch.cat([tensor, tensor]) if name.endswith(".gate.weight") else tensor
            continue
        before, rest = name.split(".experts.")
        number, part = rest.split(".", 1)
        made[name] = tensor
        made[f"{before}.experts.{int(number) + 6}.{part}"] = tensor.clone()
    save_file(made, folder / "model.safetensors", metadata={"format": "pt"})
    key = "num_local_experts" if kind == "mixtral" else "num_experts"
    config = json.loads((folder / "config.json").read_text())
    counts = {each: 12 for each in (key, "num_local_experts") if each in config}
    edit_config(folder, **counts, num_experts_per_tok=4)
    return folder


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("router", ["first", "mean"])
def test_twins_merged_with_half_as_many_chosen_are_the_model_before(
    root: Path, tmp_path: Path, kind: str, router: str
) -> None:
    """Where a twin has the same row, both are chosen alike, and their mass adds up."""
    twins = doubled(root, kind, tmp_path / "twins")
    write_statistics(tmp_path / "s", twins)
    table = {"method": "hc_smoe", "keep": 0.5, "router": router, "experts_per_token": 2}
    out = made(tmp_path, twins, tmp_path / "s", **table)
    before, after = tensors_of(root / kind), tensors_of(out)
    assert set(before) == set(after)
    for layer in [0, 1] if kind != "qwen3_moe" else [1]:
        groups = [expert(after, kind, layer, slot) for slot in range(6)]
        for number in range(6):
            own = expert(before, kind, layer, number)
            assert any(all(map(torch.equal, own, each)) for each in groups)
    assert torch.allclose(logits(out), logits(root / kind), atol=2e-6)


def shuffled(folder: Path, kind: str) -> Path:
    """Twins whose second ones hold their neurons in another order."""
    tensors = tensors_of(folder)
    for layer in range(2):
        for number in range(6, 12):
            generator = torch.Generator().manual_seed(100 * layer + number)
            at = f"model.layers.{layer}.{'block_sparse_moe' if kind == 'mixtral' else 'mlp'}"
            gate, up, down = (
                f"{at}.experts.{number}.{part}.weight"
                for part in PARTS.get(kind, ("gate_proj", "up_proj", "down_proj"))
            )
            if gate not in tensors:
                continue
            order = torch.randperm(len(tensors[gate]), generator=generator)
            tensors |= {name: tensors[name][order].clone() for name in (gate, up)}
            tensors[down] = tensors[down][:, order].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("method", ["m_smoe", "hc_smoe"])
def test_permuted_copies_are_one_moe_expert_again(
    root: Path, tmp_path: Path, kind: str, method: str
) -> None:
    """Matched neurons give the very bytes; as they are, the mean is another function."""
    twins = shuffled(doubled(root, kind, tmp_path / "twins"), kind)
    statistics = write_statistics(tmp_path / "s", twins)
    layers = {  # as m_smoe keeps the most used, these are the first of each pair
        layer: replace(each, tokens=each.tokens + 1000 * (np.arange(12) < 6))
        for layer, each in statistics.layers.items()
    }
    write_moe_statistics(tmp_path / "s", replace(statistics, layers=layers))
    table = {"method": method, "keep": 0.5, "experts_per_token": 2}
    asked = {} if method == "m_smoe" else {"neurons": "matched"}
    out = made(tmp_path, twins, tmp_path / "s", **table, **asked)
    before, after = tensors_of(twins), tensors_of(out)
    for layer in [0, 1] if kind != "qwen3_moe" else [1]:
        originals = [expert(before, kind, layer, number) for number in range(12)]
        for slot in range(6):
            own = expert(after, kind, layer, slot)
            assert any(all(map(torch.equal, own, each)) for each in originals)
    assert torch.allclose(logits(out), logits(root / kind), atol=2e-6)
    other = made(tmp_path, twins, tmp_path / "s", **table, neurons="as_they_are")
    assert not torch.allclose(logits(other), logits(root / kind), atol=1e-3)


def test_tied_slots_keep_every_row_and_equal_experts_their_function(
    root: Path, tmp_path: Path
) -> None:
    """`router: all`: two equal moe_experts of different rows become one without a change."""
    folder = tmp_path / "equal"
    folder.mkdir()
    for file in (root / "mixtral").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tensors = tensors_of(folder)
    for name in list(tensors):
        if ".experts.4." in name:
            tensors[name] = tensors[name.replace(".experts.4.", ".experts.1.")].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    write_statistics(tmp_path / "s", folder)
    out = made(tmp_path, folder, tmp_path / "s", method="hc_smoe", keep=5, router="all")
    after = tensors_of(out)
    assert set(after) == set(tensors)
    assert all(torch.equal(after[name], tensor) for name, tensor in tensors.items())
    assert json.loads((out / "config.json").read_text())["num_local_experts"] == 6
    merged = made(tmp_path, folder, tmp_path / "s", method="m_smoe", keep=2, router="all")
    slots = {
        tuple(each.flatten()[:8].tolist())
        for name, each in tensors_of(merged).items()
        if "layers.0." in name and name.endswith(".w1.weight")
    }
    assert len(slots) == 2


def plan(path: Path, digests: bool = False) -> Any:
    recipe = load_steps(path).result
    opened = open_models(recipe.subject, recipe.referenced_models)
    planned = plan_merge(recipe, opened)
    return planned.with_digests(prove_models(opened.values())) if digests else planned


def test_the_digest_follows_the_choice_and_not_the_file(root: Path, tmp_path: Path) -> None:
    def digest(name: str, statistics: Path, **table: Any) -> str:
        where = tmp_path / name
        where.mkdir()
        path = recipe_file(where, root / "mixtral", statistics, **table)
        return plan(path, digests=True).outputs[0].digest

    copy = tmp_path / "copy.st"
    copy.write_bytes((root / "mixtral.st").read_bytes())
    one = digest("a", root / "mixtral.st")
    assert one == digest("b", copy)
    assert one == digest("c", copy, keep=0.5)
    others = {
        digest("d", copy, keep=4),
        digest("e", copy, method="m_smoe"),
        digest("f", copy, method="m_smoe", router="mean"),
        digest("g", copy, method="m_smoe", router="all"),
        digest("i", copy, method="m_smoe", neurons="as_they_are"),
        digest("h", copy, experts_per_token=1),
    }
    assert len(others | {one}) == 7
    with pytest.raises(StatisticsError, match=r"were measured on a model with the digest \w{16}…"):
        digest("j", root / "fused.st")


def test_what_does_not_fit_is_told_before_a_weight_is_read(root: Path, tmp_path: Path) -> None:
    def fault(model: Path, statistics: Path, match: str, **table: Any) -> None:
        with pytest.raises(CompatibilityError, match=match):
            plan(recipe_file(tmp_path, model, statistics, **table))

    mixtral, own = root / "mixtral", root / "mixtral.st"
    fault(mixtral, own, "moe.keep is 7; '.*mixtral' has 6 moe_experts a layer", keep=7)
    fault(mixtral, own, "would be 2 of 1 moe_experts; write one of 1 to 1", keep=1)
    fault(mixtral, own, "would be 4 of 3 moe_experts", experts_per_token=4)
    fault(mixtral, root / "qwen3_moe.st", "are of layer 1; '.*' has moe_experts in layers 0-1")
    other = write_mixture(tmp_path / "o", "mixtral", num_local_experts=5, num_experts_per_tok=3)
    fault(other, own, "are of 6 moe_experts a layer; '.*o' has 5: they are another's")
    fault(other, own, "were measured with 2 moe_experts a token; '.*o' has 3")
    edit_config(other, num_local_experts=8)
    fault(other, own, "has 5 moe_experts in its files and `num_local_experts: 8`")
    tensors = tensors_of(other)
    name = "model.layers.1.block_sparse_moe.gate.weight"
    save_file({**tensors, name: tensors[name][:4].clone()}, other / "model.safetensors")
    fault(other, own, r"has 5 moe_experts in layer 1 and a router of \[4, 32\]")
    gone = {
        key: each for key, each in tensors.items() if "layers.1" not in key or "4.w2" not in key
    }
    save_file(gone, other / "model.safetensors")
    fault(other, own, "has moe_experts in layer 1 that are not whole, or not 5")
    edit_config(other, model_type="llama")
    fault(other, own, "has model_type 'llama'; moe_experts are left out of mixtral, qwen2_moe")
    with pytest.raises(MissingModelError, match=r"none\.st is not there; `ronghe moe-saliency`"):
        plan(recipe_file(tmp_path, mixtral, tmp_path / "none.st"))


def test_the_plan_says_what_is_lost(root: Path, tmp_path: Path) -> None:
    told = [
        str(each)
        for each in plan(recipe_file(tmp_path, root / "mixtral", root / "mixtral.st")).cautions
    ]
    assert any("% of the router's weight on the calibration texts, and" in each for each in told)
    merged = recipe_file(tmp_path, root / "mixtral", root / "mixtral.st", method="hc_smoe")
    told = [str(each) for each in plan(merged).cautions]
    assert any("keeps 3 rows of 6 in each router, so tokens choose otherwise" in e for e in told)
    plain = write_mixture(tmp_path / "plain", "qwen3_moe", norm_topk_prob=False)
    write_statistics(tmp_path / "p", plain)
    told = [str(each) for each in plan(recipe_file(tmp_path, plain, tmp_path / "p")).cautions]
    assert any("`norm_topk_prob: false`), so those that stay weigh more" in each for each in told)


def test_the_written_step_is_read_again(root: Path, tmp_path: Path) -> None:
    from merge_ops.recipes import document

    path = recipe_file(tmp_path, root / "mixtral", root / "mixtral.st", method="m_smoe")
    recipe = load_steps(path).result
    written = document.recipe_document(recipe, {})
    assert written["moe"]["router"] == "first"
    assert check_recipe(written, "again", "again.yaml").fewer == recipe.fewer
