"""Sequential tests: capitals by hand and over every order, error rates, rounds that stop early."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_ops.errors import PairingError
from eval_ops.scores.course import Item, course_of
from eval_ops.scores.rounds import Benchmarks, Saved, challenge, select
from eval_ops.scores.sequential import BETS, Capital, Race


def capital_of(differences: Sequence[float], units: int | None = None) -> float:
    capital = Capital((), units)
    for difference in differences:
        capital.update(np.asarray(difference))
    return math.exp(float(capital.evidence()))


def test_a_capital_by_hand() -> None:
    # Bets of a share λ on +1, 0 and −½: (1 + λ) · 1 · (1 − λ/2), averaged over the shares.
    by_hand = sum((1 + bet) * (1 - bet / 2) for bet in BETS) / len(BETS)
    assert capital_of([1.0, 0.0, -0.5]) == pytest.approx(by_hand)
    # Of this suite's 4 units: after +1 the three left have the mean −1/3, if all sum to 0; the
    # next, 0, lies 1/3 above that, and 2/3 is how far one can fall.
    by_hand = sum((1 + bet) * (1 + bet * (1 / 3) / (2 / 3)) for bet in BETS) / len(BETS)
    assert capital_of([1.0, 0.0], units=4) == pytest.approx(by_hand)


def test_no_gambler_gains_on_average() -> None:
    """Over all sequences of fair signs the capital is 1 on average, at every time."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=8))).T
    capital = Capital((256,))
    for step in signs:
        capital.update(step)
        assert np.exp(capital.evidence()).mean() == pytest.approx(1.0)


def test_no_gambler_gains_on_average_over_the_orders_of_a_suite() -> None:
    """Over all orders of six units that sum to 0 the capital is 1, and less where they sum less."""
    for units, average in (([1, 1, 0, 0, -1, -1], 1.0), ([1, 0.5, 0, -0.5, -1, -1], 0.99)):
        orders = np.array(list(itertools.permutations(units))).T
        capital = Capital((720,), units=6)
        for step in orders[:5]:
            capital.update(step)
            mean = np.exp(capital.evidence()).mean()
            assert mean == pytest.approx(1.0) if average == 1.0 else mean < 1.0
        assert not capital.certain.any()


def test_a_race_decides_when_it_can() -> None:
    race = Race()
    assert race.update([0.0] * 50) == "undecided"
    asked = 50
    while race.update([1.0]) == "undecided":
        asked += 1
    # The largest bet alone, (1 + 0.97)ⁿ / 12, passes 40 at n = 10; smaller ones help a little.
    assert 7 <= asked + 1 - 50 <= 10
    assert race.update([-1.0] * 100) == "better", "a verdict stays"
    mirrored = Race()
    mirrored.update([0.0] * 50 + [-1.0] * (asked + 1 - 50))
    assert mirrored.verdict == "worse"
    assert Race(rivals=68).threshold == pytest.approx(math.log(68) + Race().threshold)


def test_a_race_over_a_suite_is_certain_when_nothing_can_turn() -> None:
    race = Race(units=10)
    race.update([0.0] * 6)
    assert race.verdict == "undecided"
    assert race.update([0.1] * 4) == "better"  # after the last unit all is known
    early = Race(0.999999, units=10)  # by bets alone this would take more
    assert early.update([1.0] * 5) == "undecided"  # five that are left could make it even
    assert early.update([1.0]) == "better"
    same = Race(units=4)
    assert same.update([0.0] * 4) == "undecided"
    with pytest.raises(ValueError, match="the suite has 4 units, and all of them were seen"):
        same.update([0.0])


@pytest.mark.parametrize("bad", [1.5, -1.01, math.nan, math.inf])
def test_differences_lie_within_one(bad: float) -> None:
    with pytest.raises(ValueError, match="it must lie in"):
        Race().update([0.0, bad])


rights = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.5, 1.0]), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(rights, st.booleans())
def test_swapping_the_sides_mirrors_a_race(differences: list[float], whole: bool) -> None:
    units = len(differences) if whole else None
    there, back = Race(units=units), Race(units=units)
    there.update(differences)
    back.update([-each for each in differences])
    assert there.evidence == pytest.approx(back.evidence[::-1])
    mirrored = {"better": "worse", "worse": "better", "undecided": "undecided"}
    assert back.verdict == mirrored[there.verdict]
    if whole and abs(sum(differences)) > 1e-9:
        assert there.verdict == ("better" if sum(differences) > 0 else "worse")


def test_the_confidence_sequence_holds_the_mean_and_shrinks() -> None:
    draw = np.random.default_rng(1)
    race, widths = Race(), []
    for _ in range(3):
        race.update(draw.choice([-1.0, 0.0, 1.0], size=100, p=[0.1, 0.6, 0.3]))
        low, high = race.interval()
        assert low <= 0.2 <= high
        assert low <= np.mean(race.differences) <= high
        widths.append(high - low)
    assert widths[0] > widths[1] > widths[2]
    assert race.verdict == "better"
    assert race.interval()[0] >= 0
    assert Race().interval() == (-1.0, 1.0)


def test_races_of_equals_err_no_more_often_than_promised() -> None:
    """400 races of equals, looked at after each of 300 units: at most 5 % ever decide."""
    draw = np.random.default_rng(7)
    rounds, threshold = 400, Race().threshold
    for discordance in (0.1, 0.5):
        chances = [discordance / 2, 1 - discordance, discordance / 2]
        better, worse = Capital((rounds,)), Capital((rounds,))
        decided = np.zeros(rounds, dtype=bool)
        for _ in range(300):
            step = draw.choice([-1.0, 0.0, 1.0], size=rounds, p=chances)
            better.update(step)
            worse.update(-step)
            decided |= np.maximum(better.evidence(), worse.evidence()) >= threshold
        # At most 5 % and four standard deviations of a binomial count.
        assert decided.sum() <= 0.05 * rounds + 4 * math.sqrt(0.05 * 0.95 * rounds)


Values = dict[Item, float]


def answers(draw: np.random.Generator, **skills: float) -> Values:
    """Sixty answers a benchmark, right with the chance given."""
    return {
        (name, f"{number:03}"): float(draw.random() < skill)
        for name, skill in skills.items()
        for number in range(60)
    }


def items_of(values: Values) -> dict[str, dict[str, str]]:
    groups: dict[str, dict[str, str]] = {}
    for benchmark, item in values:
        groups.setdefault(benchmark, {})[item] = ""
    return groups


def asker(values: Values, log: list[Item] | None = None) -> Callable[..., Mapping[Item, float]]:
    def ask(items: Sequence[Item]) -> Mapping[Item, float]:
        if log is not None:
            assert not set(items) & set(log), "nothing is asked twice"
            log.extend(items)
        return {item: values[item] for item in items}

    return ask


def test_a_course_weighs_benchmarks_alike_and_asks_passages_together() -> None:
    groups = {"a": dict.fromkeys("12345678", ""), "b": {"1": "p", "2": "p", "3": "p", "4": ""}}
    for whole in (True, False):
        course = course_of(groups, whole=whole, seed=3)
        assert sorted(course.items) == sorted((b, i) for b, each in groups.items() for i in each)
        assert sorted(len(unit.items) for unit in course.units) == [1] * 9 + [3]
        assert max(len(unit.items) * unit.weight for unit in course.units) == pytest.approx(1.0)
        ones = dict.fromkeys(course.items, 1.0)
        noughts = dict.fromkeys(course.items, 0.0)
        right = {item: float(item[0] == "a" or item[1] == "4") for item in course.items}
        mean = sum(unit.difference(right, noughts) for unit in course.units) / len(course.units)
        assert mean * course.scale == pytest.approx((1 + 1 / 4) / 2)
        mean = sum(unit.difference(ones, noughts) for unit in course.units) / len(course.units)
        assert mean * course.scale == pytest.approx(1.0)
        assert course == course_of(groups, whole=whole, seed=3)
        assert course != course_of(groups, whole=whole, seed=4)
    assert course_of(groups, whole=True).free == 10
    assert course_of(groups, whole=False).free < 10


def test_clearly_worse_candidates_are_left_early_and_the_best_is_the_same() -> None:
    draw = np.random.default_rng(0)
    candidates = {
        f"c{number}": answers(draw, a=skill, b=skill)
        for number, skill in enumerate([0.8, 0.2, 0.3, 0.9, 0.1, 0.25, 0.9, 0.4])
    }
    course = course_of(items_of(candidates["c0"]), whole=True)
    logs: dict[str, list[Item]] = {name: [] for name in candidates}
    asks = {name: asker(values, logs[name]) for name, values in candidates.items()}
    found = select(course, asks)
    means = {name: sum(values.values()) / len(values) for name, values in candidates.items()}
    assert found.best == max(means, key=lambda name: means[name])
    assert {"c1", "c2", "c4", "c5"} <= set(found.left)
    assert found.saved.share > 0.4
    assert found.asked == {name: len(log) for name, log in logs.items()}
    assert found.saved.total == 8 * 120
    assert found.saved.to_text().startswith(f"{found.saved.asked} of 960 items were asked; ")
    logs = {name: [] for name in candidates}
    asks = {name: asker(values, logs[name]) for name, values in candidates.items()}
    pilot = select(course, asks, pilot_units=12)
    assert pilot.best == found.best
    assert pilot.saved.share > found.saved.share
    assert min(pilot.asked.values()) >= 12
    assert pilot.asked == {name: len(log) for name, log in logs.items()}
    again = select(course, {"c4": asker(candidates["c4"])}, known={"c3": candidates["c3"]})
    assert (again.best, again.saved.total) == ("c3", 120)


def test_equals_are_asked_everything_and_the_first_is_best() -> None:
    values = answers(np.random.default_rng(1), a=0.5)
    course = course_of(items_of(values), whole=True)
    found = select(course, {"x": asker(values), "y": asker(values)})
    assert (found.best, found.left, found.saved.share) == ("x", (), 0.0)
    with pytest.raises(ValueError, match="no candidate was given"):
        select(course, {})
    with pytest.raises(ValueError, match="a course over this suite"):
        select(course_of(items_of(values), whole=False), {"x": asker(values)})
    assert Saved(0, 0).share == 0.0


def test_a_challenger_stops_when_decided() -> None:
    draw = np.random.default_rng(5)
    champion = answers(draw, a=0.5, b=0.5, c=0.5)
    course = course_of(items_of(champion), whole=False)
    for skill, verdict in ((0.98, "better"), (0.02, "worse")):
        found = challenge(course, asker(answers(draw, a=skill, b=skill, c=skill)), champion)
        assert found.verdict == verdict
        assert found.saved.share > 0.4
        low, high = found.interval()
        assert high <= 0 if verdict == "worse" else low >= 0
    same = challenge(course, asker(champion), champion)
    assert (same.verdict, same.saved.share, len(same.values)) == ("undecided", 0.0, 180)
    low, high = same.interval()
    assert low < 0 < high


def test_a_poisoned_challenger_is_never_better_early() -> None:
    """Two of three benchmarks are perfect, so the mean is better; the third is destroyed."""
    draw = np.random.default_rng(6)
    champion = answers(draw, a=0.3, b=0.3, c=0.9)
    course = course_of(items_of(champion), whole=False)
    poisoned = asker(answers(draw, a=1.0, b=1.0, c=0.0))
    guarded = challenge(course, poisoned, champion, Benchmarks(champion))
    assert (guarded.verdict, guarded.saved.share) == ("undecided", 0.0)
    sound = challenge(
        course, asker(answers(draw, a=1.0, b=1.0, c=1.0)), champion, Benchmarks(champion, 0.2)
    )
    assert sound.verdict == "better"
    counts = {name: sum(b == name for b, _ in sound.values) for name in "abc"}
    assert min(counts.values()) >= 20


def test_answers_that_are_missing_are_told() -> None:
    values = answers(np.random.default_rng(1), a=0.5)
    course = course_of(items_of(values), whole=True)
    with pytest.raises(PairingError, match=r"x was asked 60 items and did not answer 60 of them"):
        select(course, {"x": lambda items: {}})
