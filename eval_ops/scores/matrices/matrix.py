"""The score matrix: what every model answered to every item of one suite, as arrays.

All that is asked of stored answers alone (what routing would buy, reduced sets, soups, retention)
is a function of this. Items stand in one order, whatever order they were scored in, so nothing
that is computed from a matrix depends on that order.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import PairingError
from eval_ops.scores.scores import Sample, SuiteScores

Values = NDArray[np.float64]
Indices = NDArray[np.int64]


class ItemKey(NamedTuple):
    """What tells an item from all others of a suite."""

    benchmark: str
    split: str
    item: str


@dataclass(frozen=True, eq=False)
class ScoreMatrix:
    """Models × items of one suite.

    `values` [models, items] are what the metric gave. `choices` [models, items] and `answers`
    [items] are indices, −1 where there is none. `loglikelihoods` [models, items, choices] are
    filled up with −inf. `lengths` [models, items] are tokens written, NaN where that is not known.
    `groups` [items] name the passage that items share, empty for none.
    """

    suite: str
    suite_digest: str
    models: tuple[str, ...]
    items: tuple[ItemKey, ...]
    values: Values
    choices: Indices
    answers: Indices
    loglikelihoods: Values
    lengths: Values
    groups: tuple[str, ...]

    @property
    def benchmarks(self) -> tuple[str, ...]:
        """The names of the benchmarks that have items here, sorted."""
        return tuple(sorted({key.benchmark for key in self.items}))

    def weights(self) -> Values:
        """Return a weight an item, shape [items]: equal in a benchmark, equal for each benchmark.

        `values @ weights()` are the means over benchmarks, as the leaderboard shows them.
        """
        counts = dict.fromkeys(self.benchmarks, 0)
        for key in self.items:
            counts[key.benchmark] += 1
        return np.array([1 / (len(counts) * counts[key.benchmark]) for key in self.items])

    def means(self) -> Values:
        """Return each model's mean over the benchmarks of the means over items, shape [models]."""
        return self.values @ self.weights()

    def benchmark_means(self) -> Values:
        """Return means [models, benchmarks], in the order of `benchmarks`."""
        columns = [self.values[:, self.where(name)].mean(axis=1) for name in self.benchmarks]
        return np.stack(columns, axis=1) if columns else np.zeros((len(self.models), 0))

    def where(self, benchmark: str) -> Indices:
        """Return the positions of a benchmark's items."""
        found = [place for place, key in enumerate(self.items) if key.benchmark == benchmark]
        return np.array(found, dtype=np.int64)

    def passages(self, places: Indices) -> tuple[str, ...]:
        """Return the passages of the items at some places; () where none of them has one."""
        found = tuple(self.groups[int(place)] for place in places)
        return found if any(found) else ()

    def model(self, name: str) -> int:
        """Return the row of a model; PairingError when it is not here."""
        if name not in self.models:
            raise PairingError(
                f"'{name}' has no scores on suite '{self.suite}'; those that have: "
                f"{', '.join(self.models[:12])}{', …' if len(self.models) > 12 else ''}"
            )
        return self.models.index(name)

    def split(self, name: str) -> "ScoreMatrix":
        """Return the items of one split; PairingError when a benchmark has none of it."""
        part = self.of_items([n for n, key in enumerate(self.items) if key.split == name])
        lacking = sorted(set(self.benchmarks) - set(part.benchmarks))
        if lacking or not part.items:
            raise PairingError(
                f"suite '{self.suite}': benchmark '{(lacking or ['?'])[0]}' has no {name} items; "
                f"add items with split '{name}' to it (for a built-in task: set validation_share)"
            )
        return part

    def of_items(self, places: Sequence[int] | Indices) -> "ScoreMatrix":
        """Return the items at some places, in that order."""
        chosen = np.asarray(places, dtype=np.int64)
        listed: list[int] = chosen.tolist()
        return replace(
            self,
            items=tuple(self.items[n] for n in listed),
            groups=tuple(self.groups[n] for n in listed),
            values=self.values[:, chosen],
            choices=self.choices[:, chosen],
            answers=self.answers[chosen],
            loglikelihoods=self.loglikelihoods[:, chosen],
            lengths=self.lengths[:, chosen],
        )

    def of_models(self, names: Sequence[str]) -> "ScoreMatrix":
        """Return some models, in that order; PairingError for one that is not here."""
        rows = np.array([self.model(name) for name in names], dtype=np.int64)
        return replace(
            self,
            models=tuple(names),
            values=self.values[rows],
            choices=self.choices[rows],
            loglikelihoods=self.loglikelihoods[rows],
            lengths=self.lengths[rows],
        )

    def without_twins(self) -> "ScoreMatrix":
        """Return the matrix without models that answer as an earlier one does, to the last bit."""
        seen: dict[bytes, str] = {}
        for row, name in enumerate(self.models):
            seen.setdefault(self.values[row].tobytes() + self.loglikelihoods[row].tobytes(), name)
        return self.of_models(list(seen.values()))


def score_matrix(
    scores: Mapping[str, SuiteScores], benchmarks: Collection[str] | None = None
) -> ScoreMatrix:
    """Make the matrix of models by name, over some or all benchmarks.

    Raises PairingError where they were scored on different suites or items, or carry no samples.
    """
    if not scores:
        raise PairingError("a score matrix needs the scores of one model at least")
    names = tuple(scores)
    first = scores[names[0]]
    tables: list[dict[ItemKey, Sample]] = []
    for name, each in scores.items():
        if each.suite_digest != first.suite_digest:
            raise PairingError(
                f"'{name}' and '{names[0]}' were scored on different suites ('{each.suite}' "
                f"{each.suite_digest[:12]}, '{first.suite}' {first.suite_digest[:12]}); score both "
                "on the same one"
            )
        tables.append(_answers(name, each, benchmarks))
        if tables[-1].keys() != tables[0].keys():
            stray = sorted(tables[-1].keys() ^ tables[0].keys())[0]
            raise PairingError(
                f"'{name}' and '{names[0]}' did not answer the same items of suite '{first.suite}' "
                f"(for example '{stray.item}' of {stray.benchmark}); score both again"
            )
    items = tuple(sorted(tables[0]))
    most = max((len(s.loglikelihoods) for s in tables[0].values()), default=0)
    shape = (len(names), len(items))
    values, lengths = np.zeros(shape), np.full(shape, np.nan)
    choices, likely = np.full(shape, -1, np.int64), np.full((*shape, most), -np.inf)
    for row, table in enumerate(tables):
        for column, key in enumerate(items):
            sample = table[key]
            values[row, column] = sample.value
            if sample.choice is not None:
                choices[row, column] = sample.choice
            length = getattr(sample, "length", None)
            if length is not None:
                lengths[row, column] = length
            likely[row, column, : len(sample.loglikelihoods)] = sample.loglikelihoods[:most]
    told = [tables[0][key] for key in items]
    answers = np.array([-1 if s.answer is None else s.answer for s in told], dtype=np.int64)
    groups = tuple(getattr(sample, "group", "") for sample in told)
    return ScoreMatrix(
        first.suite, first.suite_digest, names, items, values, choices, answers, likely, lengths,
        groups,
    )  # fmt: skip


def _answers(
    name: str, scores: SuiteScores, benchmarks: Collection[str] | None
) -> dict[ItemKey, Sample]:
    from eval_ops.scores.scores import samples_from_parquet

    samples = scores.samples
    if not samples and scores.parquet is not None:
        samples = samples_from_parquet(scores.parquet())
    found = {
        ItemKey(sample.benchmark, sample.split, sample.item): sample
        for sample in samples
        if benchmarks is None or sample.benchmark in benchmarks
    }
    if not found:
        raise PairingError(
            f"'{name}': these scores carry no samples of suite '{scores.suite}'; load them "
            "together with their Parquet file"
        )
    return found
