"""Scores of one checkpoint on one suite: values with standard errors, and every single answer."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

from blake3 import blake3

from eval_ops.errors import PairingError, ScoresError

SCORES_FORMAT = 1
"""The version of the stored form; part of every scores digest."""


class Mean(NamedTuple):
    """A mean over benchmarks, both in the metric's unit (a share between 0 and 1).

    `stderr` is None when some benchmark has a single item.
    """

    value: float
    stderr: float | None


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer. `value` is what the metric gave it: 1.0 or 0.0 for an accuracy.

    For multiple choice `choice` and `answer` are indices and `loglikelihoods` holds one sum of
    token log-probabilities (natural logarithm) a choice; otherwise None, None and ().
    """

    benchmark: str
    split: str
    item: str
    value: float
    choice: int | None = None
    answer: int | None = None
    loglikelihoods: tuple[float, ...] = ()

    @property
    def correct(self) -> bool:
        """Whether the metric gave full marks."""
        return self.value == 1.0


@dataclass(frozen=True, slots=True)
class Score:
    """The mean of a metric over the `n` items of one benchmark and split.

    `stderr` is the sample standard deviation divided by the root of n (None when n is 1), as
    lm-eval computes it. `version` is the task's, or the digest of the items asked.
    """

    benchmark: str
    split: str
    metric: str
    value: float
    stderr: float | None
    n: int
    version: str


@dataclass(frozen=True)
class SuiteScores:
    """All scores of one checkpoint on one suite; `samples` may be left out when not needed.

    `versions` names the software that scored: lm_eval, torch, transformers. With `parquet`, which
    reads the file of the samples, these are read when items are first compared, and of each no more
    than its value; `samples` stays empty.
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
    def _values(self) -> dict[tuple[str, str], dict[str, float]]:
        table: dict[tuple[str, str], dict[str, float]] = {}
        if self.parquet is not None and not self.samples:
            for benchmark, split, item, value in _answers(self.parquet()):
                table.setdefault((benchmark, split), {})[item] = value
            self._check_counts(table)
        for sample in self.samples:
            table.setdefault((sample.benchmark, sample.split), {})[sample.item] = sample.value
        return table

    def check_samples(self) -> None:
        """Read the samples now. Raises ScoresError where they cannot be, or give other scores."""
        self._check_counts(self._values)

    def forget_samples(self) -> None:
        """Let go of the samples' values where they can be read again, for the sake of memory."""
        if self.parquet is not None:
            self.__dict__.pop("_values", None)

    def score(self, benchmark: str, split: str = "test") -> Score:
        """Return one score; PairingError when there is none for this benchmark and split."""
        for score in self.scores:
            if score.benchmark == benchmark and score.split == split:
                return score
        raise PairingError(
            f"suite '{self.suite}': benchmark '{benchmark}' has no {split} items that were scored; "
            f"add items with split '{split}' to it (for a built-in task: set validation_share)"
        )

    def mean(self, split: str = "test") -> Mean:
        """Return the unweighted mean over the benchmarks, and its standard error.

        The benchmarks are independent, so the error is the root of the summed squares over their
        number. PairingError when a benchmark has no items of this split.
        """
        scores = [self.score(benchmark, split) for benchmark in self.benchmarks]
        value = sum(score.value for score in scores) / len(scores)
        errors = [score.stderr for score in scores if score.stderr is not None]
        if len(errors) < len(scores):
            return Mean(value, None)
        return Mean(value, math.sqrt(sum(error**2 for error in errors)) / len(scores))

    def values(self, benchmark: str, split: str = "test") -> dict[str, float]:
        """Return item id → value. PairingError when this object carries no samples of these."""
        self.score(benchmark, split)
        try:
            return self._values[benchmark, split]
        except KeyError:
            raise PairingError(
                f"suite '{self.suite}': these scores carry no samples of '{benchmark}' ({split}); "
                "load them together with their Parquet file to compare item by item"
            ) from None

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
            if content["format"] != SCORES_FORMAT:
                raise ScoresError(
                    f"the scores have format {content['format']!r}; this version of Ronghe reads "
                    f"format {SCORES_FORMAT}: score the checkpoint again"
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

    def samples_to_parquet(self) -> bytes:
        """Write the samples as one Parquet file: a row an answer, the columns of `Sample`."""
        pa, pq = _arrow()
        columns = {
            name: [getattr(sample, name) for sample in self.samples]
            for name in Sample.__dataclass_fields__
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(columns, schema=_schema()), sink, compression="zstd")
        return bytes(sink.getvalue().to_pybytes())

    def _check_counts(self, values: Mapping[tuple[str, str], Mapping[str, float]]) -> None:
        counted = {key: len(items) for key, items in values.items()}
        stated = {(score.benchmark, score.split): score.n for score in self.scores}
        if counted != stated:
            raise ScoresError(
                f"suite '{self.suite}': the scores speak of {stated} items, their samples of "
                f"{counted}; the two files do not belong together: score the checkpoint again"
            )


def samples_from_parquet(data: bytes) -> tuple[Sample, ...]:
    """Read what `SuiteScores.samples_to_parquet` wrote; ScoresError when it is something else."""
    rows: list[dict[str, Any]] = _table(data, _schema()).to_pylist()
    for row in rows:
        row["loglikelihoods"] = tuple(row["loglikelihoods"])
    return tuple(Sample(**row) for row in rows)


def _answers(data: bytes) -> Iterable[tuple[str, str, str, float]]:
    """Benchmark, split, item and value of each sample, and nothing else of them."""
    pa, _ = _arrow()
    names = ["benchmark", "split", "item", "value"]
    table = _table(data, pa.schema([_schema().field(name) for name in names]))
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def _table(data: bytes, schema: Any) -> Any:
    """The columns of a schema of a file of samples, as an arrow table."""
    pa, pq = _arrow()
    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read(schema.names, use_threads=False)
        return table.cast(schema)
    except (pa.ArrowException, ValueError, OSError, KeyError) as error:
        raise ScoresError(f"the samples cannot be read: {error}") from None


def summarize(samples: Iterable[Sample], metric: str, version: str) -> tuple[Score, ...]:
    """Return one score for each benchmark and split among `samples`, validation before test."""
    groups: dict[tuple[str, str], list[float]] = {}
    for sample in sorted(samples, key=lambda sample: sample.split, reverse=True):
        groups.setdefault((sample.benchmark, sample.split), []).append(sample.value)
    return tuple(
        Score(benchmark, split, metric, *mean_and_stderr(values), len(values), version)
        for (benchmark, split), values in groups.items()
    )


def mean_and_stderr(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean and its standard error (None for a single value)."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def scores_digest(checkpoint_digest: str, suite_digest: str) -> str:
    """Name the scores of a checkpoint on a suite: where to look before scoring again."""
    return blake3(f"{SCORES_FORMAT}\0{checkpoint_digest}\0{suite_digest}".encode()).hexdigest()


def _schema() -> Any:
    pa, _ = _arrow()
    return pa.schema(
        [
            ("benchmark", pa.string()),
            ("split", pa.string()),
            ("item", pa.string()),
            ("value", pa.float64()),
            ("choice", pa.int32()),
            ("answer", pa.int32()),
            ("loglikelihoods", pa.list_(pa.float64())),
        ]
    )


def _arrow() -> tuple[Any, Any]:
    """pyarrow and its Parquet module, which have no types."""
    import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    import pyarrow.parquet  # pyright: ignore[reportMissingTypeStubs]

    return pyarrow, pyarrow.parquet
