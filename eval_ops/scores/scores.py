"""Scores of one checkpoint on one suite: values with intervals, and every single answer."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

from blake3 import blake3

from eval_ops.errors import PairingError, ScoresError
from eval_ops.scores.intervals import clustered_stderr, interval_of, mean_interval, stated_interval
from eval_ops.scores.samples import (
    Answers,
    Sample,
    answers_from_parquet,
    answers_of,
    samples_to_parquet,
)
from eval_ops.scores.samples import samples_from_parquet as samples_from_parquet

SCORES_FORMAT = 2
"""The version of the stored form. Format 1 knew no intervals, groups, texts and lengths."""
READ_FORMATS = (1, SCORES_FORMAT)
SCORES_VERSION = 1
"""Part of every scores digest; raised when the same answers would get other values."""


class Mean(NamedTuple):
    """A mean over benchmarks, all in the metric's unit (a share between 0 and 1).

    `stderr` is None when some benchmark has a single item. `low` and `high` bound the 95 %
    interval, which is never ±0; of a bare value nothing is known but that it is a share.
    """

    value: float
    stderr: float | None
    low: float = 0.0
    high: float = 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of a metric over the `n` items of one benchmark and split.

    `stderr` is the sample standard deviation divided by the root of n (None when n is 1), as
    lm-eval computes it; where items share groups it is the clustered one (None for one group).
    `version` is the task's, or the digest of the items asked. `low` and `high` bound the 95 %
    interval (`intervals`); without them value, n and stderr give it. `mean_length` counts the
    tokens of an answer that was written.
    """

    benchmark: str
    split: str
    metric: str
    value: float
    stderr: float | None
    n: int
    version: str
    low: float = math.nan
    high: float = math.nan
    mean_length: float | None = None

    def __post_init__(self) -> None:
        """Give a score without an interval that of its value, n and standard error."""
        if math.isnan(self.low) or math.isnan(self.high):
            low, high = stated_interval(self.value, self.n, self.stderr)
            object.__setattr__(self, "low", low)
            object.__setattr__(self, "high", high)


@dataclass(frozen=True)
class SuiteScores:
    """All scores of one checkpoint on one suite; `samples` may be left out when not needed.

    `versions` names the software that scored: lm_eval, torch, transformers. With `parquet`, which
    reads the file of the samples, these are read when items are first compared, and of each no more
    than its value and group; `samples` stays empty.
    """

    suite: str
    suite_digest: str
    scores: tuple[Score, ...]
    samples: tuple[Sample, ...] = field(default=(), repr=False)
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    parquet: Callable[[], bytes] | None = field(default=None, repr=False, compare=False)

    @cached_property
    def benchmarks(self) -> tuple[str, ...]:
        """The benchmarks' names, in the suite's order."""
        return tuple(dict.fromkeys(score.benchmark for score in self.scores))

    @cached_property
    def _read(self) -> Answers:
        """What each item is worth."""
        if self.parquet is None or self.samples:
            return answers_of(self.samples)
        answers = answers_from_parquet(self.parquet())
        self._check_counts(answers)
        return answers

    def check_samples(self) -> None:
        """Read the samples now.

        Raises ScoresError where they cannot be, give other scores, or are worth NaN or infinity.
        """
        self._check_counts(self._read)
        if not self._read.finite or not all(math.isfinite(each.value) for each in self.scores):
            raise ScoresError(
                f"suite '{self.suite}': answers are worth NaN or infinity, which nothing can be "
                "compared with; the checkpoint's weights are broken"
            )

    def forget_samples(self) -> None:
        """Let go of the samples' values where they can be read again, for the sake of memory."""
        if self.parquet is not None:
            self.__dict__.pop("_read", None)

    def score(self, benchmark: str, split: str = "test") -> Score:
        """Return one score; PairingError when there is none for this benchmark and split."""
        score = self._by_part.get((benchmark, split))
        if score is not None:
            return score
        raise PairingError(
            f"suite '{self.suite}': benchmark '{benchmark}' has no {split} items that were scored; "
            f"add items with split '{split}' to it (for a built-in task: set validation_share)"
        )

    @cached_property
    def _by_part(self) -> dict[tuple[str, str], Score]:
        """The scores by benchmark and split: a leaderboard asks for each of them several times."""
        return {(each.benchmark, each.split): each for each in reversed(self.scores)}

    def mean(self, split: str = "test") -> Mean:
        """Return the unweighted mean over the benchmarks, its standard error and interval.

        The benchmarks are independent, so the error is the root of the summed squares over their
        number, and so is each half of the interval. PairingError when a benchmark has no items of
        this split.
        """
        if split not in self._means:
            self._means[split] = self._mean(split)
        return self._means[split]

    def _mean(self, split: str) -> Mean:
        scores = [self.score(benchmark, split) for benchmark in self.benchmarks]
        value = sum(score.value for score in scores) / len(scores)
        errors = [score.stderr for score in scores if score.stderr is not None]
        bounds = mean_interval((score.value, score.low, score.high) for score in scores)
        if len(errors) < len(scores):
            return Mean(value, None, *bounds)
        return Mean(value, math.sqrt(sum(error**2 for error in errors)) / len(scores), *bounds)

    @cached_property
    def _means(self) -> dict[str, Mean]:
        """The means that were asked for: a leaderboard asks for each of them several times."""
        return {}

    def values(self, benchmark: str, split: str = "test") -> dict[str, float]:
        """Return item id → value. PairingError when this object carries no samples of these."""
        self._check_part(benchmark, split)
        return self._read.table(benchmark, split)

    def groups(self, benchmark: str, split: str = "test") -> Mapping[str, str]:
        """Return item id → group for the items that share a passage; PairingError as `values`."""
        self._check_part(benchmark, split)
        return self._read.items.groups.get((benchmark, split), {})

    def _check_part(self, benchmark: str, split: str) -> None:
        self.score(benchmark, split)
        if (benchmark, split) not in self._read.items.of:
            raise PairingError(
                f"suite '{self.suite}': these scores carry no samples of '{benchmark}' ({split}); "
                "load them together with their Parquet file to compare item by item"
            )

    def to_json(self) -> str:
        """Write everything but the samples, as JSON."""
        content = {
            "format": SCORES_FORMAT,
            "suite": self.suite,
            "suite_digest": self.suite_digest,
            "versions": dict(self.versions),
            "scores": [asdict(score) for score in self.scores],
        }
        return json.dumps(content, ensure_ascii=False, indent=2) + "\n"

    @classmethod
    def from_json(
        cls, text: str | bytes, parquet: bytes | Callable[[], bytes] | None = None
    ) -> "SuiteScores":
        """Read what `to_json` wrote, with the samples of `samples_to_parquet` when given.

        A function that reads them is called when they are first needed. ScoresError when either is
        unreadable, or when the samples do not give the scores.
        """
        try:
            content = json.loads(text)
            if content["format"] not in READ_FORMATS:
                raise ScoresError(
                    f"the scores have format {content['format']!r}; this version of Ronghe reads "
                    f"formats {' and '.join(map(str, READ_FORMATS))}: score the checkpoint again"
                )
            scores = tuple(Score(**row) for row in content["scores"])
            samples = samples_from_parquet(parquet) if isinstance(parquet, bytes) else ()
            later = None if isinstance(parquet, bytes) else parquet
            loaded = cls(
                content["suite"],
                content["suite_digest"],
                scores,
                samples,
                content["versions"],
                later,
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ScoresError(
                f"the scores cannot be read: {type(error).__name__}: {error}"
            ) from None
        if isinstance(parquet, bytes):
            loaded.check_samples()
        return loaded

    @classmethod
    def unfinished(cls, text: str | bytes, parquet: bytes) -> "SuiteScores":
        """Read scores of which some samples have no value yet; what is finished is checked after.

        ScoresError when either is unreadable.
        """
        read = cls.from_json(text)
        return replace(read, samples=samples_from_parquet(parquet))

    def samples_to_parquet(self) -> bytes:
        """Write the samples as one Parquet file: a row an answer, the columns of `Sample`."""
        return samples_to_parquet(self.samples)

    def _check_counts(self, answers: Answers) -> None:
        counted = answers.items.counts
        stated = {(score.benchmark, score.split): score.n for score in self.scores}
        if counted != stated:
            raise ScoresError(
                f"suite '{self.suite}': the scores speak of {stated} items, their samples of "
                f"{counted}; the two files do not belong together: score the checkpoint again"
            )


def summarize(samples: Iterable[Sample], metric: str, version: str) -> tuple[Score, ...]:
    """Return one score for each benchmark and split among `samples`, validation before test."""
    answers: dict[tuple[str, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda sample: sample.split, reverse=True):
        answers.setdefault((sample.benchmark, sample.split), []).append(sample)
    return tuple(
        _score(benchmark, split, metric, version, given)
        for (benchmark, split), given in answers.items()
    )


def _score(benchmark: str, split: str, metric: str, version: str, given: Sequence[Sample]) -> Score:
    values, groups = [each.value for each in given], [each.group for each in given]
    value, stderr = mean_and_stderr(values)
    if any(groups):
        stderr = clustered_stderr(values, groups)
    low, high = interval_of(values, groups)
    lengths = [each.length for each in given if each.length is not None]
    length = sum(lengths) / len(lengths) if lengths else None
    return Score(benchmark, split, metric, value, stderr, len(values), version, low, high, length)


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error (None for a single value)."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def scores_digest(checkpoint_digest: str, suite_digest: str) -> str:
    """Name the scores of a checkpoint on a suite: where to look before scoring again."""
    return blake3(f"{SCORES_VERSION}\0{checkpoint_digest}\0{suite_digest}".encode()).hexdigest()
