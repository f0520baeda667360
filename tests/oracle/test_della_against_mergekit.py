"""della and della_linear drop by the same law as mergekit's: a chance for each rank in a row.

As in test_dare_against_mergekit.py the random bits differ, and which entries were kept, and by what
they grew, is read off both programs' results.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import Tensors, read_tensors, write_family
from tests.oracle.peers.oracle_environment import OracleCase, merge_with_mergekit, write_config
from tests.oracle.test_dare_against_mergekit import SHAPE, SMALLEST, assert_one_factor, shares
from tests.oracle.written.cases_rows import DELLA, DELLA_CHANCES

SEEDS = range(6)
PARTS = 4  # of a row, from its smallest entries to its largest


@dataclass(frozen=True)
class Pruned:
    """The models, and mergekit's results in `work`."""

    work: Path
    models: Mapping[str, Path]

    def results(self, name: str, seed: int) -> dict[str, Tensors]:
        """What both programs made of one case with one seed."""
        text = (self.work / f"{name}.yaml").read_text(encoding="utf-8")
        config = self.work / f"{name}-{seed}-ours.yaml"
        config.write_text(f"{text}\nseed: {seed}\n", encoding="utf-8")
        ours = merge_in_process(config, self.work / "ronghe" / config.stem)
        theirs = self.work / "mergekit" / f"{name}-{seed}"
        return {"ours": read_tensors(ours), "theirs": read_tensors(theirs)}


@pytest.fixture(scope="module")
def pruned(tmp_path_factory: pytest.TempPathFactory) -> Pruned:
    """Writes the checkpoints and has mergekit merge every case with every seed."""
    work = tmp_path_factory.mktemp("della")
    base, (one,) = write_family(work, SHAPE, experts=1)
    models, cases = {"base": base, "one": one}, []
    for name, text in DELLA.items():
        config = write_config(work / f"{name}.yaml", text, models)
        for seed in SEEDS:
            run = f"{config.stem}-{seed}"
            cases.append(OracleCase(run, config, work / "mergekit" / run, seed))
    outcomes = merge_with_mergekit(work, cases)
    assert set(outcomes.values()) == {None}
    return Pruned(work, models)


def chances(label: str, tensor: str, delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every entry's chance of being kept, from the paper's formula, and its part of the row."""
    (first, last), epsilon, _ = DELLA_CHANCES[label]
    layer = int(tensor.split(".")[2]) if ".layers." in tensor else 0
    density = first + (last - first) * layer / 3
    rank = delta.abs().argsort(dim=-1).argsort(dim=-1).double()
    length = delta.shape[-1]
    return density - epsilon + 2 * epsilon * rank / (length - 1), (rank * PARTS / length).long()


@pytest.mark.parametrize("name", DELLA)
def test_drops_and_rescales_as_mergekit_does(pruned: Pruned, name: str) -> None:
    """Over all seeds each quarter of the ranks of each tensor keeps what its chances say, within
    5σ, and of the whole model within 4σ; and every kept entry of a tensor grew by one factor."""
    label = name.split("-", 1)[1]
    base, expert = (read_tensors(pruned.models[each]) for each in ("base", "one"))
    kept: dict[str, dict[str, torch.Tensor]] = {"ours": {}, "theirs": {}}
    for seed in SEEDS:
        for whose, merged in pruned.results(name, seed).items():
            for tensor, share in shares(merged, base, expert).items():
                delta = expert[tensor] - base[tensor]
                assert_one_factor(share, delta, DELLA_CHANCES[label][2], tensor)
                stays = ((share != 0) & ~share.isnan()).double()
                kept[whose][tensor] = kept[whose].get(tensor, 0) + stays
    for whose, by_tensor in kept.items():
        surplus, variance = torch.zeros(PARTS), torch.zeros(PARTS)
        for tensor, count in by_tensor.items():
            delta = expert[tensor] - base[tensor]
            chance, part = chances(label, tensor, delta)
            for quarter in range(PARTS):
                here = (part == quarter) & (delta.abs() >= SMALLEST)
                expected = len(SEEDS) * chance[here].sum()
                own = len(SEEDS) * (chance * (1 - chance))[here].sum()
                difference = count[here].sum() - expected
                assert difference.abs() <= 5 * own.sqrt(), (whose, tensor, quarter)
                surplus[quarter] += difference
                variance[quarter] += own
        assert (surplus.abs() < 4 * variance.sqrt()).all(), whose
