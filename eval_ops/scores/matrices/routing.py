"""What routing would buy: one table from stored scores alone, no model loaded.

A merge answers everything with one checkpoint; a router keeps several and picks one for each item.
Whether that is worth their memory is told before anything is built. Whatever has to be chosen or
fitted is on validation items; all numbers are of test items, and intervals are paired with the best
single model, and verdicts are those of any comparison (scores/comparison.py).

- best single: the model with the best validation mean.
- benchmark router: knows the benchmark, takes its best model. A router by text is only worth
  building where it gets above this.
- neighbours, logistic regression: read the text (text_routers).
- pools, cascade: several models answer (pools).
- oracle: the best model of each item, known afterwards. It is biased upward: so is the oracle of
  models that answer independently of each other. That one is the reference, by permuting each
  model's values within a benchmark.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval_ops.scores.comparison import Verdict, compare_answers
from eval_ops.scores.intervals import Interval, interval_of, mean_interval
from eval_ops.scores.matrices.matrix import Indices, ItemKey, ScoreMatrix, Values
from eval_ops.scores.matrices.pools import (
    can_pool,
    choose_cascade,
    linear_weights,
    log_weights,
    pooled,
    probabilities,
)
from eval_ops.scores.matrices.text_features import text_features
from eval_ops.scores.matrices.text_routers import cross_validated, logistic, neighbours, routed
from eval_ops.scores.paired_answers import Pair

PERMUTATIONS = 200
RESAMPLES = 4_000


@dataclass(frozen=True)
class RoutingRow:
    """One way to answer. Values are shares of test items, the mean over benchmarks.

    `low` and `high` bound `value`; `difference` is to the best single model, with its interval.
    `models` says how many are kept in memory, `calls` how many are asked an item on average.
    `validation` is None where the way was not chosen by it. `detail` is for people; `surprise` is
    the p-value of the paired test, which the verdict heeds beside the interval.
    """

    name: str
    value: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    verdict: Verdict
    models: int
    calls: float
    validation: float | None
    detail: str = ""
    surprise: float = 1.0


@dataclass(frozen=True)
class RoutingTable:
    """The table, and what it says in a sentence.

    `gap` is the oracle's value less the best single's; `chance_gap` that of models that are as good
    as these and independent of each other. `left_out` says which ways could not be tried, and why.
    """

    rows: tuple[RoutingRow, ...]
    best: str
    gap: float
    chance_gap: float
    advice: str
    left_out: Mapping[str, str]
    confidence: float


def routing_table(
    matrix: ScoreMatrix,
    texts: Mapping[ItemKey, str] | None = None,
    confidence: float = 0.95,
    seed: int = 0,
) -> RoutingTable:
    """Work out what every router would have scored on the matrix's test items.

    `texts` are the items' questions; without them no router reads texts. Models that answer alike
    to the last bit count once. Raises PairingError without validation or test items.
    """
    unique = matrix.without_twins()
    known, test = unique.split("validation"), unique.split("test")
    preferred = np.argsort(-np.round(known.means(), 12), kind="stable")
    setting = _Setting(known, test, preferred, confidence, seed)
    best = setting.single()
    ways: list[_Way] = [best, _benchmark_router(setting)]
    left_out: dict[str, str] = {}
    read = _read_texts(setting, texts)
    if isinstance(read, str):
        left_out["routers by text"] = read
    else:
        ways += read
    pools = _pools(setting)
    if isinstance(pools, str):
        left_out["pools"] = pools
    else:
        ways += pools
    ways.append(_cascade(setting))
    oracle = _oracle(setting)
    rows = tuple(setting.row(way, best) for way in [*ways, oracle])
    chance = chance_oracle(test, seed)
    value = {row.name: row.value for row in rows}
    gap = value["oracle"] - value["best single"]
    chance_gap = chance - value["best single"]
    name = test.models[int(preferred[0])]
    return RoutingTable(rows, name, gap, chance_gap, _advice(rows), left_out, confidence)


def chance_oracle(test: ScoreMatrix, seed: int = 0) -> float:
    """Return the mean oracle of models as good as these that answer independently of each other."""
    draw = np.random.default_rng(seed)
    parts: list[float] = []
    for benchmark in test.benchmarks:
        values = test.values[:, test.where(benchmark)]
        drawn = [draw.permuted(values, axis=1).max(axis=0).mean() for _ in range(PERMUTATIONS)]
        parts.append(float(np.mean(drawn)))
    return float(np.mean(parts))


def gap_recovered(weak: Values, strong: Values, preference: Values) -> float:
    """Return RouteLLM's APGR: the share of the gap that a router recovers, over all thresholds.

    `weak` and `strong` are values of the same items, `preference` says how much an item is for the
    strong model. Routing at random gives ½ on average, an empty gap is not a number.
    """
    order = np.argsort(-preference, kind="stable")
    gained = np.concatenate([[0.0], np.cumsum((strong - weak)[order])]) / len(weak)
    area = float(np.trapezoid(gained, dx=1 / len(weak)))
    gap = float(strong.mean() - weak.mean())
    return area / gap if gap else float("nan")


@dataclass(frozen=True)
class _Way:
    """One way to answer: its values on validation and on test items, and what it costs."""

    name: str
    validation: float | None
    test: Values
    models: int
    calls: float
    detail: str = ""


@dataclass(frozen=True)
class _Setting:
    known: ScoreMatrix
    test: ScoreMatrix
    preferred: Indices
    confidence: float
    seed: int

    def single(self) -> _Way:
        best = int(self.preferred[0])
        value = float(self.known.values[best] @ self.known.weights())
        name = self.known.models[best]
        return _Way("best single", value, self.test.values[best], 1, 1.0, name)

    def by_model(self, name: str, known: Indices | None, test: Indices, detail: str = "") -> _Way:
        """A router that picks one model an item: `known` and `test` are its picks."""
        value = None
        if known is not None:
            picked = self.known.values[known, np.arange(len(known))]
            value = float(picked @ self.known.weights())
        values = self.test.values[test, np.arange(len(test))]
        return _Way(name, value, values, len(set(test.tolist())), 1.0, detail)

    def row(self, way: _Way, best: _Way) -> RoutingRow:
        pairs: dict[str, Pair] = {}
        for name in self.test.benchmarks:
            at = self.test.where(name)
            pairs[name] = Pair(way.test[at], best.test[at], self.test.passages(at))
        sure = self.confidence
        found = compare_answers(pairs, confidence=sure, resamples=RESAMPLES, seed=self.seed)
        value, around = float(way.test @ self.test.weights()), self._interval(way.test)
        return RoutingRow(
            way.name, value, around.low, around.high, found.difference, found.low, found.high,
            found.verdict, way.models, way.calls, way.validation, way.detail, found.surprise,
        )  # fmt: skip

    def _interval(self, values: Values) -> Interval:
        """The interval of a mean over benchmarks, as scores have it: never without a width."""
        parts: list[tuple[float, float, float]] = []
        for name in self.test.benchmarks:
            places = self.test.where(name)
            own: list[float] = values[places].tolist()
            found = interval_of(own, self.test.passages(places), self.confidence)
            parts.append((float(np.mean(own)), found.low, found.high))
        return mean_interval(parts)


def _benchmark_router(setting: _Setting) -> _Way:
    means = setting.known.benchmark_means()[setting.preferred]
    chosen = {
        name: int(setting.preferred[int(np.argmax(np.round(means[:, place], 12)))])
        for place, name in enumerate(setting.known.benchmarks)
    }
    picks = [
        np.array([chosen[key.benchmark] for key in part.items], dtype=np.int64)
        for part in (setting.known, setting.test)
    ]
    detail = ", ".join(f"{name}: {setting.known.models[row]}" for name, row in chosen.items())
    return setting.by_model("benchmark router", picks[0], picks[1], detail)


def _read_texts(setting: _Setting, texts: Mapping[ItemKey, str] | None) -> list[_Way] | str:
    wanted = [*setting.known.items, *setting.test.items]
    lacking = sorted({key.benchmark for key in wanted if key not in (texts or {})})
    if texts is None or lacking:
        return f"the questions of {', '.join(lacking)} are not in the suite's own items"
    known, test = (
        text_features([texts[key] for key in part.items]) for part in (setting.known, setting.test)
    )
    makers = {"neighbours by text": neighbours, "logistic regression on text": logistic}
    ways: list[_Way] = []
    for name, make in makers.items():
        expected = cross_validated(make, known, setting.known.values)
        on_known = routed(expected, setting.preferred.tolist())
        predict = make(known, setting.known.values)
        ways.append(
            setting.by_model(name, on_known, routed(predict(test), setting.preferred.tolist()))
        )
    best = max(ways, key=lambda way: (way.validation or 0.0, way.name == ways[0].name))
    return [
        way if way is not best else _Way(*_fields(way)[:-1], "chosen on validation") for way in ways
    ]


def _fields(way: _Way) -> tuple[str, float | None, Values, int, float, str]:
    return way.name, way.validation, way.test, way.models, way.calls, way.detail


def _pools(setting: _Setting) -> list[_Way] | str:
    """Pools over the items whose choices follow from log-likelihoods; the best single elsewhere."""
    known, test = can_pool(setting.known), can_pool(setting.test)
    lacking = sorted(
        {k.benchmark for k, can in zip(setting.test.items, test, strict=True) if not can}
    )
    if lacking or not known.all():
        return f"answers to {', '.join(lacking or ['some items'])} follow from no log-likelihoods"
    given = [probabilities(part) for part in (setting.known, setting.test)]
    ways: list[_Way] = []
    for name, fit, log in (
        ("linear pool", linear_weights, False),
        ("log pool", log_weights, True),
    ):
        weights = fit(given[0], setting.known.answers)
        values = [
            (pooled(each, weights, log) == part.answers).astype(np.float64)
            for each, part in zip(given, (setting.known, setting.test), strict=True)
        ]
        used = int((weights > 1e-3 * weights.max()).sum())
        if used == 1:  # one model is that model, whatever its scale
            values = [part.values[int(weights.argmax())] for part in (setting.known, setting.test)]
        shown = _shares(setting.test.models, weights)
        on_known = float(values[0] @ setting.known.weights())
        ways.append(_Way(name, on_known, values[1], used, float(used), shown))
    return ways


def _shares(models: Sequence[str], weights: Values) -> str:
    largest = np.argsort(-weights, kind="stable")[:3]
    total = weights.sum() or 1.0
    return ", ".join(f"{models[n]} {weights[n] / total:.0%}" for n in largest if weights[n] > 0)


def _cascade(setting: _Setting) -> _Way:
    cascade = choose_cascade(setting.known, setting.preferred)
    on_known, _ = cascade.answers(setting.known)
    values, share = cascade.answers(setting.test)
    names = setting.test.models
    first, then = names[cascade.first], names[cascade.then]
    detail = f"{first}, then {then} for {share:.0%}" if first != then else first
    value = float(on_known @ setting.known.weights())
    return _Way("confidence cascade", value, values, 1 + (first != then), 1 + share, detail)


def _oracle(setting: _Setting) -> _Way:
    rows = setting.test.values[setting.preferred]
    picks = setting.preferred[np.argmax(rows, axis=0)]
    way = setting.by_model("oracle", None, picks)
    return _Way(*_fields(way)[:-1], "known afterwards; no router gets there")


def _advice(rows: Sequence[RoutingRow]) -> str:
    """Say whether to route, by the way that validation would have chosen."""
    real = [row for row in rows if row.validation is not None]
    chosen = max(real, key=lambda row: (round(row.validation or 0.0, 12), -row.models, -row.calls))
    best = next(row for row in rows if row.name == "best single")
    if chosen.name == best.name:
        return f"Keep one model, {best.detail}: on validation items nothing here is above it."
    told = (
        f"{100 * chosen.difference:+.1f} points on test items "
        f"({100 * chosen.difference_low:+.1f} to {100 * chosen.difference_high:+.1f},"
        f" paired test p = {chosen.surprise:.2g})"
    )
    if chosen.verdict == "better":
        return (
            f"Routing pays: {chosen.name} is above the best single model, {best.detail}, by {told},"
            f" and keeps {chosen.models} models."
        )
    return (
        f"Keep one model, {best.detail}: {chosen.name}, the best on validation items, is not"
        f" significantly above it ({told})."
    )


def pair_counts(test: ScoreMatrix) -> NDArray[np.int64]:
    """Return n10 [models, models]: items that the row's model has right and the column's wrong."""
    right = test.values >= 1.0
    return right.astype(np.int64) @ (~right).astype(np.int64).T
