"""Made-up answers of several models to the same multiple-choice items."""

from collections.abc import Mapping, Sequence

import numpy as np

from eval_ops.scores.scores import Sample, SuiteScores, summarize

SUITE = "d" * 64
CHOICES = 4


def answered(
    skills: Mapping[str, Mapping[str, float]], n: int = 40, seed: int = 0
) -> dict[str, SuiteScores]:
    """Scores of models by name: `skills` says how often each is right, by benchmark.

    `n` items a benchmark and split. Items are hard or easy for all alike, to a part.
    """
    draw = np.random.default_rng(seed)
    benchmarks = sorted({name for each in skills.values() for name in each})
    samples: dict[str, list[Sample]] = {name: [] for name in skills}
    for benchmark in benchmarks:
        for split in ("validation", "test"):
            for number in range(n):
                answer = int(draw.integers(CHOICES))
                ease = draw.normal()
                for name, skill in skills.items():
                    right = bool(draw.normal() * 0.7 + ease * 0.7 < _threshold(skill[benchmark]))
                    samples[name].append(
                        _sample(benchmark, split, number, answer, right, draw.normal(size=CHOICES))
                    )
    return {name: scores_from(each) for name, each in samples.items()}


def scores_from(samples: Sequence[Sample], suite: str = SUITE) -> SuiteScores:
    return SuiteScores("made", suite, summarize(samples, "acc", "1"), tuple(samples))


def plain(values: Mapping[str, Sequence[float]], split: str = "test") -> SuiteScores:
    """Scores of one model, by benchmark, on the items of both splits alike."""
    return scores_from(
        [
            Sample(benchmark, each, f"{number:03}", float(value))
            for benchmark, of_items in values.items()
            for each in ("validation", split)
            for number, value in enumerate(of_items)
        ]
    )


def _threshold(skill: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(np.clip(skill, 1e-9, 1 - 1e-9)))


def _sample(
    benchmark: str, split: str, number: int, answer: int, right: bool, noise: np.ndarray
) -> Sample:
    likely = -2 + 0.3 * noise
    choice = answer if right else (answer + 1 + number % (CHOICES - 1)) % CHOICES
    likely[choice] = likely.max() + 0.2 + abs(noise[0])
    return Sample(
        benchmark, split, f"{number:03}", float(right), choice, answer, tuple(map(float, likely))
    )
