import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_ops.errors import GateError, PairingError, ScoresError
from eval_ops.scores.decision import Decision
from eval_ops.scores.gates import Gate, decide, parse_gate
from eval_ops.scores.scores import SuiteScores, summarize

ScoresOf = Callable[..., SuiteScores]


def right(n: int, of: int = 40) -> tuple[list[int], list[int]]:
    """The first n of `of` test items right."""
    return [], [1] * n + [0] * (of - n)


@pytest.fixture
def experts(scores_of: ScoresOf) -> dict[str, SuiteScores]:
    """Each good at one thing: means (38 + 10) / 80 = 60 % and (10 + 36) / 80 = 57.5 %."""
    return {
        "herbs": scores_of(herb_class=right(38), idiom_meaning=right(10)),
        "idioms": scores_of(herb_class=right(10), idiom_meaning=right(36)),
    }


def test_promotes_what_beats_the_best_expert_and_loses_nowhere(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    candidate = scores_of(herb_class=right(37), idiom_meaning=right(36))
    decision = decide(candidate, experts, None, Gate())
    assert decision.promote
    assert decision.opponent == "herbs"
    assert decision.candidate_mean == pytest.approx(73 / 80)
    assert decision.opponent_mean == pytest.approx(48 / 80)
    herb, idiom = decision.benchmarks
    assert (herb.expert, herb.expert_value, herb.candidate, herb.n) == ("herbs", 0.95, 0.925, 40)
    assert (idiom.expert, idiom.passed) == ("idioms", True)
    (reason,) = decision.reasons
    assert "is significantly above that of the best single expert 'herbs', 60.0" in reason


def test_stays_when_one_benchmark_loses_too_much(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    candidate = scores_of(herb_class=right(26), idiom_meaning=right(40))
    decision = decide(candidate, experts, None, Gate())
    assert not decision.promote
    assert [check.passed for check in decision.benchmarks] == [False, True]
    assert "herb_class: 65.0 is below 95.0 of the best single expert there, 'herbs'" in str(
        decision.reasons
    )
    assert decide(candidate, experts, None, Gate(allowed_loss=0.6)).promote


def test_a_loss_that_may_be_chance_is_no_reason(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    # 34 against 38 of 40: 10 points below, more than the allowed 5, but McNemar's p is 0.125.
    candidate = scores_of(herb_class=right(34), idiom_meaning=right(40))
    check = decide(candidate, experts, None, Gate()).benchmarks[0]
    assert check.comparison.difference == pytest.approx(-0.1)
    assert check.passed


def test_the_incumbent_stays_unless_it_is_significantly_beaten(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    incumbent = scores_of(herb_class=right(36), idiom_meaning=right(35))
    slightly = scores_of(herb_class=right(37), idiom_meaning=right(36))
    decision = decide(slightly, experts, incumbent, Gate())
    assert not decision.promote
    assert decision.opponent == "incumbent"
    assert "is not significantly above that of the incumbent, 88.8" in decision.reasons[0]
    assert not decide(incumbent, experts, incumbent, Gate()).promote
    weak = scores_of(herb_class=right(30), idiom_meaning=right(30))
    assert decide(slightly, experts, weak, Gate()).promote


def test_too_few_items_to_decide(scores_of: ScoresOf) -> None:
    candidate = scores_of(a=right(10, of=10))
    experts = {"x": scores_of(a=right(0, of=10))}
    decision = decide(candidate, experts, None, Gate())
    assert not decision.promote
    assert "a: 10 test items are too few to decide on; the gate asks for 20" in decision.reasons
    assert decide(candidate, experts, None, Gate(minimum_samples=10)).promote


def test_a_decision_can_be_read_by_people_and_programs(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    decision = decide(
        scores_of(herb_class=right(20), idiom_meaning=right(40)), experts, None, Gate()
    )
    assert json.loads(decision.to_json())["benchmarks"][0]["passed"] is False
    chinese = decide(experts["herbs"], {"本草": experts["idioms"]}, None, Gate())
    assert '"expert": "本草"' in chinese.to_json()
    table = decision.to_markdown()
    assert table.startswith("**the champion stays**\n\n- the mean, 75.0, is not significantly")
    assert "\n\n| benchmark | candidate | best expert | difference | p, Holm | passed |\n" in table
    assert "| no |\n" in table
    assert table.endswith("| yes |\n")
    assert chinese.to_markdown().startswith("**the champion stays**")
    assert (
        "| herb_class | 50.0 (35.2–64.8) | 95.0 (83.5–98.6) herbs | -45.0, 95 % interval" in table
    )


def test_reasons_say_the_difference_its_interval_and_the_p_value(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    # herb_class: 20 of 40 against 38, so 18 items that only the expert has: p = 2 / 2¹⁸ = 7.6e-06.
    candidate = scores_of(herb_class=right(20), idiom_meaning=right(40))
    mean, loss = decide(candidate, experts, None, Gate()).reasons
    check = decide(candidate, experts, None, Gate()).benchmarks[0].comparison
    assert check.p_value == 2 / 2**18
    assert loss == (
        "herb_class: 50.0 is below 95.0 of the best single expert there, 'herbs', by significantly "
        "more than the allowed 5 points (difference -45.0, 95 % interval "
        f"{100 * check.low:+.1f} to {100 * check.high:+.1f}, McNemar p = 7.6e-06)"
    )
    # The mean: 60 of 80 against 48; 30 idioms that only the candidate has, 18 herbs that it lost.
    assert mean.startswith("the mean, 75.0, ")
    assert mean.endswith(", McNemar p = 0.11)")


def test_reasons_say_no_p_value_where_items_are_not_right_or_wrong(scores_of: ScoresOf) -> None:
    candidate, expert = scores_of(a=([], [0.75] * 40)), scores_of(a=([], [0.5] * 40))
    decision = decide(candidate, {"x": expert}, None, Gate())
    assert decision.promote
    assert decision.reasons == (
        "the mean, 75.0, is significantly above that of the best single expert 'x', 50.0 "
        "(difference +25.0, 95 % interval +25.0 to +25.0 points)",
    )
    worse = decide(expert, {"x": candidate}, None, Gate())
    assert worse.reasons[0].startswith("the mean, 50.0, is significantly below that of the best")


def test_a_loss_as_large_as_allowed_passes(scores_of: ScoresOf) -> None:
    # Every item is worth 0.25 less, so the whole interval lies at −0.25: not below −0.25.
    candidate, expert = scores_of(a=([], [0.5] * 40)), scores_of(a=([], [0.75] * 40))
    passed = [
        decide(candidate, {"x": expert}, None, Gate(allowed_loss=allowed)).benchmarks[0].passed
        for allowed in (0.25, 0.2499)
    ]
    assert passed == [True, False]


def test_as_many_items_as_asked_for_are_enough(scores_of: ScoresOf) -> None:
    candidate, experts = scores_of(a=right(20, of=20)), {"x": scores_of(a=right(0, of=20))}
    assert decide(candidate, experts, None, Gate(minimum_samples=20)).promote
    assert not decide(candidate, experts, None, Gate(minimum_samples=21)).promote


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("allowed_loss", [0.0, 1.0], [-0.001, 1.001]),
        ("confidence", [0.501, 0.999], [0.5, 1.0]),
        ("minimum_samples", [1], [0, 1.5]),
    ],
)
def test_the_limits_of_settings(key: str, good: list[float], bad: list[float]) -> None:
    for value in good:
        assert getattr(parse_gate({key: value}), key) == value
    for value in bad:
        with pytest.raises(GateError, match=f"^gate: {key} is {value}; "):
            parse_gate({key: value})


def test_settings(scores_of: ScoresOf) -> None:
    assert parse_gate({}) == Gate(allowed_loss=0.05, confidence=0.95, minimum_samples=20)
    assert parse_gate({"allowed_loss": 0, "confidence": 0.9}).allowed_loss == 0
    with pytest.raises(GateError) as caught:
        parse_gate(
            {"alowed_loss": 0.1, "confidence": 1.5, "minimum_samples": "many"}, "ties.yaml: gate"
        )
    text = str(caught.value)
    assert text.startswith("ties.yaml: gate: 3 faults\n")
    assert (
        "alowed_loss is not a known key. Did you mean 'allowed_loss'? "
        "Known: allowed_loss, blocking, confidence, early_stopping, minimum_samples, reduced_set"
        in text
    )
    assert "confidence is 1.5; it must be less than 1" in text
    assert "minimum_samples is 'many'; it must be a valid integer" in text


def test_nothing_to_compare_with(scores_of: ScoresOf, experts: dict[str, SuiteScores]) -> None:
    candidate = scores_of(herb_class=right(20), idiom_meaning=right(40))
    with pytest.raises(GateError, match="no single expert was given to compare with"):
        decide(candidate, {}, None, Gate())
    old = scores_of(suite_digest="old", herb_class=right(20), idiom_meaning=right(40))
    with pytest.raises(PairingError, match="score both on the same suite"):
        decide(candidate, experts, old, Gate())


def checks_of(decision: Decision) -> dict[str, bool]:
    return {check.name: check.passed for check in decision.checks}


def test_a_candidate_with_nan_is_refused(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    sound = scores_of(herb_class=right(37), idiom_meaning=right(36))
    for value in (math.nan, math.inf, -math.inf):
        samples = (replace(sound.samples[0], value=value), *sound.samples[1:])
        decision = decide(replace(sound, samples=samples), experts, None, Gate(blocking=[]))
        assert not decision.promote
        assert checks_of(decision)["answers_are_finite"] is False
        assert decision.reasons == (
            "herb_class, item 'herb_class-test-0': the candidate's answers are worth NaN or "
            "infinity; its weights are broken",
        )
        assert decision.to_markdown().startswith("**the champion stays**")
        with pytest.raises(GateError, match=r"'herbs' has scores that are not finite; score it"):
            decide(sound, {"herbs": replace(sound, samples=samples)}, None, Gate())
        with pytest.raises(ScoresError, match="worth NaN or infinity has no interval"):
            summarize(samples, "acc", "v")
    nan = replace(sound.scores[0], value=math.nan)
    decision = decide(replace(sound, scores=(nan, *sound.scores[1:])), experts, None, Gate())
    assert decision.reasons[0].startswith("herb_class: the candidate's answers are worth NaN")


def test_a_poisoned_candidate_is_refused_however_good_the_rest(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    """One benchmark destroyed, every other one perfect, so that the mean is clearly better."""
    weak = {name: scores_of(a=right(15), b=right(15), c=right(20), d=right(20)) for name in "xy"}
    poisoned = scores_of(a=right(40), b=right(40), c=right(40), d=right(0))
    decision = decide(poisoned, weak, weak["x"], Gate())
    assert not decision.promote
    assert checks_of(decision) == {
        "mean_is_better": True,
        "no_benchmark_lost": False,
        "enough_items": True,
        "answers_are_finite": True,
    }
    lost = next(check for check in decision.checks if check.name == "no_benchmark_lost")
    assert lost.told.startswith("d: 0.0 is below 50.0 of the best single expert there")
    assert lost.numbers["d: difference"] == -50
    # The gains on a and b are the more surprising ones, so that d comes third of four.
    assert lost.numbers["d: p, Holm"] == pytest.approx(2 * 2 / 2**20)


def test_an_identical_candidate_is_undecided(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    incumbent = scores_of(herb_class=right(36), idiom_meaning=right(35))
    decision = decide(incumbent, experts, incumbent, Gate())
    assert (decision.promote, decision.mean.verdict) == (False, "undecided")
    assert checks_of(decision)["mean_is_better"] is False
    assert checks_of(decision)["no_benchmark_lost"] is True


def test_checks_that_do_not_block_are_told(
    scores_of: ScoresOf, experts: dict[str, SuiteScores]
) -> None:
    candidate = scores_of(herb_class=right(26), idiom_meaning=right(40))
    gate = parse_gate({"blocking": ["mean_is_better", "enough_items"]})
    decision = decide(candidate, experts, None, gate)
    assert checks_of(decision)["no_benchmark_lost"] is False
    assert decision.promote is (decision.mean.verdict == "better")
    assert decision.reasons[-1] == "not blocking in this recipe: no_benchmark_lost"
    with pytest.raises(GateError, match=r"blocking"):
        parse_gate({"blocking": ["no_benchmark"]})


def test_chance_losses_on_many_benchmarks_are_corrected(scores_of: ScoresOf) -> None:
    """Six items lost on one of ten benchmarks: p = 0.031 alone, and nothing among ten."""
    names = "abcdefghij"
    expert = scores_of(**{name: right(40) for name in names})
    candidate = scores_of(**{name: right(34 if name == "a" else 40) for name in names})
    alone = decide(scores_of(a=right(34)), {"x": scores_of(a=right(40))}, None, Gate())
    assert alone.benchmarks[0].adjusted == 2 / 64
    assert not Gate(allowed_loss=0).blocks("nothing")
    strict = Gate(allowed_loss=0.01)
    assert (
        not decide(scores_of(a=right(34)), {"x": scores_of(a=right(40))}, None, strict)
        .benchmarks[0]
        .passed
    )
    check = decide(candidate, {"x": expert}, None, strict).benchmarks[0]
    assert check.adjusted == pytest.approx(10 * 2 / 64)
    assert check.passed


def in_passages(scores: SuiteScores, size: int) -> SuiteScores:
    """The same answers, `size` test items of a benchmark a passage."""
    samples = tuple(
        replace(sample, group=f"{sample.benchmark} {int(sample.item.rsplit('-', 1)[1]) // size}")
        for sample in scores.samples
    )
    parts = [[s for s in samples if s.benchmark == name] for name in scores.benchmarks]
    summed = tuple(score for part in parts for score in summarize(part, "acc", "v"))
    return replace(scores, samples=samples, scores=summed)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 4), st.integers(20, 40), st.integers(1, 20))
def test_a_destroyed_benchmark_is_never_promoted(
    scores_of: ScoresOf, others: int, items: int, passage: int
) -> None:
    """However many benchmarks are perfect, and however the lost one's items share passages."""
    names = [f"b{number}" for number in range(others)]
    candidate = scores_of(lost=right(0, items), **{name: right(40) for name in names})
    expert = scores_of(lost=right(items, items), **{name: right(0) for name in names})
    ours, theirs = (in_passages(each, passage) for each in (candidate, expert))
    assert not decide(ours, {"x": theirs}, theirs, Gate()).promote


def test_passages_too_few_to_show_a_loss_are_too_few_to_decide_on(scores_of: ScoresOf) -> None:
    """Of 4 passages the sign-flip test gives p = 2 / 2⁴ at the least: a loss is never shown."""
    names = [f"b{number}" for number in range(9)]
    candidate = scores_of(lost=right(0, 20), **{name: right(60, 60) for name in names})
    expert = scores_of(lost=right(20, 20), **{name: right(0, 60) for name in names})
    decision = decide(in_passages(candidate, 5), {"x": in_passages(expert, 5)}, None, Gate())
    found = checks_of(decision)
    assert (found["mean_is_better"], found["no_benchmark_lost"]) == (True, True)
    assert not decision.promote
    # Holm multiplies by ten benchmarks: 10 · 2 / 2⁸ = 0.078 is above 5 %, 10 · 2 / 2⁹ is below.
    assert decision.reasons[-1] == (
        "lost: 20 test items in 4 groups are too few to show a loss; it takes 9 groups"
    )
    enough = decide(in_passages(candidate, 2), {"x": in_passages(expert, 2)}, None, Gate())
    assert checks_of(enough)["enough_items"] is True
    assert checks_of(enough)["no_benchmark_lost"] is False
