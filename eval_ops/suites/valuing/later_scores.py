"""Scores that come after the model has written: grades of a judge, and programs that were run.

The child that runs a model has no network, and it runs no other program. So it hands back what the
model wrote with NaN for a value and no score, and whoever asked it fills both in here.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from eval_ops.scores import Sample, Score, SuiteScores, summarize
from eval_ops.suites.suites import Benchmark, Suite
from eval_ops.suites.valuing.judging import Ask, graded

Run = Callable[[str], bool]
"""A program → whether it ran to its end: its tests hold."""


def later_scores(suite: Suite, scores: SuiteScores, ask: Ask, run: Run) -> SuiteScores:
    """Return scores with the values and scores of benchmarks that are graded, or run, after.

    `ask` asks the judge, `run` runs a program. Raises JudgeError, and what either of them raises.
    """
    by_benchmark: dict[str, list[Sample]] = {each.name: [] for each in suite.benchmarks}
    for sample in scores.samples:
        by_benchmark[sample.benchmark].append(sample)
    given: list[Score] = []
    samples: list[Sample] = []
    for benchmark in suite.benchmarks:
        own: Sequence[Sample] = by_benchmark[benchmark.name]
        if benchmark.later:
            own = (
                graded(benchmark, own, ask)
                if benchmark.later == "judge"
                else ran(benchmark, own, run)
            )
            given += summarize(own, str(benchmark.metric), benchmark.version)
        else:
            given += [score for score in scores.scores if score.benchmark == benchmark.name]
        samples += own
    return replace(scores, scores=tuple(given), samples=tuple(samples))


def ran(benchmark: Benchmark, samples: Sequence[Sample], run: Run) -> tuple[Sample, ...]:
    """Return samples with 1.0 where what was written passes the item's tests, put behind it."""
    tests = {item.id: item.tests for item in benchmark.items}
    return tuple(
        replace(sample, value=float(run(f"{sample.text}\n{tests[sample.item]}")))
        for sample in samples
    )
