"""Error rates and savings of early stopping: few simulations here, 2,000 in the benchmark."""

import json
import math
from pathlib import Path

from benchmarks.gate_simulation import replay, simulate
from eval_ops.scores.scores import Sample, SuiteScores, summarize

ANSWERS = Path(__file__).parent / "quickstart_answers.json"


def quickstart() -> dict[str, SuiteScores]:
    """The quickstart's 69 candidates with their answers to its 132 validation items."""
    table: dict[str, dict[str, str]] = json.loads(ANSWERS.read_text())["candidates"]
    found: dict[str, SuiteScores] = {}
    for name, by_benchmark in table.items():
        samples = tuple(
            Sample(benchmark, "validation", f"{number:03}", float(digit))
            for benchmark, digits in by_benchmark.items()
            for number, digit in enumerate(digits)
        )
        scores = [
            score
            for benchmark in by_benchmark
            for score in summarize([s for s in samples if s.benchmark == benchmark], "acc", "1")
        ]
        found[name] = SuiteScores("quickstart", "q", tuple(scores), samples)
    return found


def test_early_stopping_saves_two_fifths_of_the_quickstart_with_the_same_winner() -> None:
    candidates = quickstart()
    assert len(candidates) == 69
    for seed in range(3):
        found = replay("quickstart", candidates, seed=seed)
        assert found.selection.best == found.winner
        assert found.winner_rank == 1
        assert found.selection.saved.share >= 0.4


def test_equals_are_promoted_no_more_often_than_promised() -> None:
    outcome = simulate(60, 0.0, 100)
    # At most 5 % and four standard deviations of a binomial count, with and without stopping.
    most = 0.05 + 4 * math.sqrt(0.05 * 0.95 / 100)
    assert outcome.promoted <= most
    assert outcome.promoted_early_stopping <= most


def test_better_ones_are_promoted_and_worse_ones_are_left() -> None:
    better = simulate(150, 0.25, 20)
    assert better.promoted_early_stopping >= better.promoted >= 0.8
    worse = simulate(150, -0.25, 20)
    assert worse.promoted_early_stopping == worse.promoted == 0
    assert worse.mean_items < 0.8 * 150
