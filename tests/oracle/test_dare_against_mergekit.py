"""dare_linear and dare_ties obey the same law as mergekit's, and keep the task vector on average.

The random bits are not mergekit's, so single results cannot be equal. With one expert of weight 1
and no normalization the output minus the base is the dropped and rescaled task vector: which
entries were kept, and by what they grew, can be read off both programs' results. Masks are drawn by
the names and sizes of tensors, so one family will do: Qwen2's layers have all that Llama's have.
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process, merged_in_memory
from tests.models.checkpoint_factory import LLAMA, QWEN2, Tensors, read_tensors, write_family
from tests.oracle.peers.oracle_environment import OracleCase, merge_with_mergekit, write_config
from tests.oracle.written.cases import DARE

SHAPE = replace(QWEN2, layers=4)
SEEDS = range(6)
SMALLEST = 1e-4  # entries of the task vector below this drown in the rounding of base + entry


@dataclass(frozen=True)
class Dropping:
    """The models, the DARE configs, and mergekit's results in `work`."""

    work: Path
    models: dict[str, Path]

    def theirs(self, run: str) -> Tensors:
        return read_tensors(self.work / "mergekit" / run)

    def ours(self, run: str, text: str, seed: int) -> Tensors:
        config = self.work / f"{run}-{seed}-ours.yaml"
        config.write_text(f"{text}\nseed: {seed}\n", encoding="utf-8")
        return read_tensors(merge_in_process(config, self.work / "ronghe" / config.stem))

    def text(self, run: str) -> str:
        return (self.work / f"{run}.yaml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Dropping:
    """Writes the checkpoints and has mergekit merge every case with every seed."""
    work = tmp_path_factory.mktemp("dare")
    base, (one, two) = write_family(work, SHAPE, experts=2)
    models, cases = {"base": base, "one": one, "two": two}, []
    for name, text in DARE.items():
        config = write_config(work / f"{name}.yaml", text, models)
        for seed in SEEDS:
            run = f"{config.stem}-{seed}"
            cases.append(OracleCase(run, config, work / "mergekit" / run, seed))
    outcomes = merge_with_mergekit(work, cases)
    assert set(outcomes.values()) == {None}
    return Dropping(work, models)


def density_of(name: str, tensor: str) -> float:
    """The density a tensor has in a case of `DARE`, layers counted by hand."""
    if name.endswith("-by-layer"):
        layer = int(tensor.split(".")[2]) if ".layers." in tensor else 0
        return 0.2 + 0.6 * layer / 3
    return 0.6 if name.endswith("-not-rescaled") else 0.3


def shares(merged: Tensors, base: Tensors, expert: Tensors) -> Tensors:
    """What became of each entry of the task vector, as a multiple of it; NaN for tiny entries."""
    result = {}
    for name, before in base.items():
        delta = expert[name].double() - before.double()
        result[name] = (merged[name].double() - before.double()) / delta
        result[name][delta.abs() < SMALLEST] = torch.nan
    return result


def assert_one_factor(share: torch.Tensor, delta: torch.Tensor, rescaled: bool, name: str) -> None:
    """All kept entries grew alike: by 1, or by Σ|δ| / Σ|kept δ| of this very tensor.

    Of tiny entries it is not known whether they were kept, so the ratio is known within bounds.
    """
    kept = (share != 0) & ~share.isnan()
    if not kept.any():
        return
    factor = share[kept].median()
    assert (share[kept] - factor).abs().max() < 5e-3, name
    magnitude = delta.double().abs()
    low = magnitude.sum() / magnitude[kept | share.isnan()].sum()
    high = magnitude.sum() / magnitude[kept].sum()
    bounds = (low, high) if rescaled else (1, 1)
    assert bounds[0] * (1 - 1e-4) <= factor <= bounds[1] * (1 + 1e-4), name


@pytest.mark.parametrize("name", DARE)
def test_drops_and_rescales_as_mergekit_does(dropping: Dropping, name: str) -> None:
    """Over all seeds each tensor keeps its density within 5σ and the whole model within 4σ, in
    mergekit's results and in ours; and every kept entry of a tensor grew by the right factor."""
    models = dropping.models
    base, expert = read_tensors(models["base"]), read_tensors(models["one"])
    kept = {whose: dict.fromkeys(base, 0) for whose in ("ours", "theirs")}
    for seed in SEEDS:
        results = {
            "ours": dropping.ours(name, dropping.text(name), seed),
            "theirs": dropping.theirs(f"{name}-{seed}"),
        }
        for whose, merged in results.items():
            for tensor, share in shares(merged, base, expert).items():
                delta = expert[tensor] - base[tensor]
                assert_one_factor(share, delta, "not-rescaled" not in name, tensor)
                kept[whose][tensor] += int(((share != 0) & ~share.isnan()).sum())
    for whose, by_tensor in kept.items():
        surplus, variance = 0.0, 0.0
        for tensor, count in by_tensor.items():
            delta = expert[tensor].double() - base[tensor].double()
            drawn = len(SEEDS) * int((delta.abs() >= SMALLEST).sum())
            chance = density_of(name, tensor)
            own = drawn * chance * (1 - chance)
            assert abs(count - drawn * chance) < 5 * own**0.5, f"{whose}: {tensor}"
            surplus, variance = surplus + count - drawn * chance, variance + own
        assert abs(surplus) < 4 * variance**0.5, whose


def test_masks_of_other_seeds_tensors_and_experts_are_unrelated(dropping: Dropping) -> None:
    """Independent masks agree on density² + (1 − density)² of the entries, within 5σ."""
    models = dropping.models
    base = read_tensors(models["base"])
    text = dropping.text("dare_linear-not-rescaled")
    masks = []
    for seed, expert in ((0, "one"), (1, "one"), (0, "two")):
        moved = text.replace(str(models["one"]), str(models[expert]))
        merged = dropping.ours(f"unrelated-{expert}", moved, seed)
        masks.append(shares(merged, base, read_tensors(models[expert])))
    gate, up = (f"model.layers.0.mlp.{which}_proj.weight" for which in ("gate", "up"))
    pairs = ((masks[0][gate], masks[1][gate]), (masks[0][gate], masks[2][gate]))
    for first, second in (*pairs, (masks[0][gate], masks[0][up])):
        known = ~first.isnan() & ~second.isnan()
        agree = ((first != 0) == (second != 0))[known].double().mean().item()
        expected = 0.6**2 + 0.4**2
        assert agree == pytest.approx(expected, abs=5 * (0.25 / int(known.sum())) ** 0.5)


@pytest.mark.parametrize("rescale", ["l1_norm", "inverse_density"])
@pytest.mark.parametrize("method", ["dare_linear", "dare_ties"])
def test_the_task_vector_is_kept_on_average(tmp_path: Path, method: str, rescale: str) -> None:
    """E[δ̂] = δ: over 150 seeds the mean of each entry is its value, within chance.

    With δ̂ = δ / density for kept entries a mean over S seeds has deviation √((1/density − 1) / S)
    in units of δ. Restoring Σ|δ| instead differs by O(1/n) for a tensor of n entries.
    """
    shape = replace(LLAMA, layers=1, hidden=32, intermediate=48)
    base_folder, (one,) = write_family(tmp_path, shape, experts=1)
    base, expert = read_tensors(base_folder), read_tensors(one)
    seeds, density = 150, 0.3
    sums = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in base.items()}
    document = {
        "merge_method": method, "base_model": "base", "dtype": "float32",
        "models": [{"model": "one", "parameters": {"weight": 1, "density": density}}],
        "parameters": {"rescale": rescale},
    }  # fmt: skip
    opened = {
        name: open_checkpoint(name, FolderSource(folder))
        for name, folder in (("base", base_folder), ("one", one))
    }
    for seed in range(seeds):
        recipe = parse_recipe(json.dumps(document | {"seed": seed}), method, method)
        merged = merged_in_memory(plan_merge(recipe, opened))
        for name, share in shares(merged, base, expert).items():
            sums[name] += share
    large = {name: total for name, total in sums.items() if total.numel() > 1000}
    means = torch.cat([total.flatten() for total in large.values()]) / seeds
    scores = (means[~means.isnan()] - 1) / ((1 / density - 1) / seeds) ** 0.5
    assert scores.numel() > 10_000
    assert scores.abs().max() < 6
    assert scores.mean().abs() < 0.06
    assert scores.square().mean().item() == pytest.approx(1, abs=0.06)
