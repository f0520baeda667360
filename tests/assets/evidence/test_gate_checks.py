"""The gate's checks on a champion, in Dagster: by name, with their numbers, and what they keep."""

import math
import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.evidence.champions import CHECK, build_champion
from assets.evidence.gate_checks import NAMES, NOT_JUDGED, gate_results
from assets.frame.run_settings import RunSettings
from assets.work import names
from assets.work.ranking.ranking import Held, Promotion
from assets.work.ranking.suite_power import smallest_differences
from assets.work.scoring.racing import Contender, challenge_champion, race, values_of
from eval_ops.scores import SuiteScores
from eval_ops.scores.course import Item
from eval_ops.scores.decision import CHECK_NAMES
from eval_ops.scores.gates import Gate, decide
from eval_ops.scores.leaderboard import Entry
from eval_ops.scores.scores import Sample, summarize
from orchestration.refreshing.failed_steps import is_fault
from tests.assets.work.made_up_store import ScoredStore


def checks_of(scored: ScoredStore) -> Mapping[str, dg.AssetCheckEvaluation]:
    """Materialize the champion of `ties` in Dagster and return its checks by name."""
    condition = dg.AutomationCondition.eager()
    champion = build_champion(scored.contest, scored.recipe, "1", condition)
    store = (scored.root / "store").as_uri()
    settings = RunSettings(
        store_uri=store,
        catalog_folder=str(scored.root),
        catalog="team",
        device="cpu",
        threads=1,
        memory=1 << 30,
    )
    with dg.DagsterInstance.ephemeral() as instance:
        done = dg.materialize(
            [champion], resources={"settings": settings}, instance=instance, raise_on_error=True
        )
    return {each.check_name: each for each in done.get_asset_check_evaluations()}


def test_definitions_name_the_checks_of_the_gate() -> None:
    assert NAMES == CHECK_NAMES


def test_a_better_candidate_passes_every_check_and_becomes_champion(tmp_path: Path) -> None:
    scored = ScoredStore(tmp_path)
    scored.everything({"x=0": 0.95, "x=1": 0.4})
    checks = checks_of(scored)
    others = {"rests_on_nothing_withdrawn", "licences_go_together"}
    assert set(checks) == {CHECK, *NAMES, *others}
    assert all(check.passed for check in checks.values())
    numbers = {key: value.value for key, value in checks["mean_is_better"].metadata.items()}
    assert numbers["verdict"] == "better"
    assert numbers["difference"] == pytest.approx(45)
    assert numbers["low"] > 0
    assert numbers["p"] < 0.001
    assert numbers["n"] == 60
    assert checks["enough_items"].metadata["asked"].value == 5
    assert names.resolve(scored.store, names.champion("ties")) is not None


def test_one_that_looks_better_but_is_undecided_does_not_displace_the_champion(
    tmp_path: Path,
) -> None:
    scored = ScoredStore(tmp_path)
    scored.everything({"x=0": 0.9})
    checks_of(scored)
    before = names.resolve(scored.store, names.champion("ties"))
    assert before is not None
    scored.candidate("x=1|e1+e2", 0.95)  # 57 of 60 right instead of 54
    checks = checks_of(scored)
    assert not checks["mean_is_better"].passed
    assert checks["mean_is_better"].severity == dg.AssetCheckSeverity.WARN
    problem = str(checks["mean_is_better"].metadata["problems"].value)
    assert "the mean, 95.0, is not significantly above that of the incumbent, 90.0" in problem
    assert checks["no_benchmark_lost"].passed
    after = names.resolve(scored.store, names.champion("ties"))
    assert after is not None
    assert after.digest == before.digest


def test_where_nothing_is_judged_every_check_says_so() -> None:
    for promotion, why in (
        (None, "no candidate is scored"),
        (Held("suite x is broken", None, False), "suite x is broken"),
    ):
        results = gate_results(promotion)
        assert [result.check_name for result in results] == list(NAMES)
        assert not any(result.passed for result in results)
        assert {result.severity for result in results} == {dg.AssetCheckSeverity.WARN}
        told = [dict[str, Any](result.metadata or {}) for result in results]
        assert {str(each["problems"].value) for each in told} == {why}
        assert all(each[NOT_JUDGED].value for each in told)


def test_the_smallest_differences_are_told_before_a_run(tmp_path: Path) -> None:
    scored = ScoredStore(tmp_path)
    worst = smallest_differences(scored.store, scored.contest)["one"]
    assert "if two checkpoints differ at the worst" in worst
    assert worst.endswith("On one benchmark, in points: b 26.7 (60 items).")
    scored.everything({})
    known = smallest_differences(scored.store, scored.contest)["one"]
    assert "as often as earlier scores do" in known


def made(skill: float, seed: int) -> SuiteScores:
    """Scores of 60 validation and 60 test items of two benchmarks each."""
    draw = random.Random(seed)
    samples = [
        Sample(name, split, f"{split}{n:02}", float(draw.random() < skill))
        for name in ("a", "b")
        for split in ("validation", "test")
        for n in range(60)
    ]
    scores = tuple(
        score
        for name in ("a", "b")
        for score in summarize([s for s in samples if s.benchmark == name], "acc", "1")
    )
    return SuiteScores("two", "d" * 64, scores, tuple(samples))


def judged(candidate: SuiteScores, gate: Gate) -> dict[str, dg.AssetCheckResult]:
    """What Dagster is told of a candidate that the gate refuses, beside two equal experts."""
    expert = made(0.5, 1)
    decision = decide(candidate, {"e": expert}, expert, gate)
    assert not decision.promote
    entry = Entry("candidate", "ties", candidate)
    results = gate_results(Promotion(entry, decision, None, False, decision.reasons))
    return {str(each.check_name): each for each in results}


def test_a_poisoned_candidate_is_shown_as_failed_and_an_undecided_one_as_a_warning() -> None:
    samples = [replace(each, value=float(each.benchmark == "a")) for each in made(0.5, 1).samples]
    poisoned = replace(
        made(0.5, 1),
        samples=tuple(samples),
        scores=tuple(
            score
            for name in ("a", "b")
            for score in summarize([s for s in samples if s.benchmark == name], "acc", "1")
        ),
    )
    found = judged(poisoned, Gate())
    lost = found["no_benchmark_lost"]
    assert (lost.passed, lost.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (lost.metadata or {})["blocking"].value is True
    assert found["mean_is_better"].severity == dg.AssetCheckSeverity.WARN
    # What does not block only tells, whatever it found.
    lenient = judged(poisoned, Gate(blocking=["mean_is_better"]))["no_benchmark_lost"]
    assert (lenient.passed, lenient.severity) == (False, dg.AssetCheckSeverity.WARN)
    few = judged(made(0.5, 2), Gate(minimum_samples=100))["enough_items"]
    assert (few.passed, few.severity) == (False, dg.AssetCheckSeverity.ERROR)


def test_of_a_candidate_with_nan_one_check_fails_and_the_others_judge_nothing() -> None:
    sound = made(0.9, 3)
    broken = (replace(sound.samples[-1], value=math.nan), *sound.samples[:-1])
    found = judged(replace(sound, samples=broken), Gate(blocking=[]))
    finite = found.pop("answers_are_finite")
    assert (finite.passed, finite.severity) == (False, dg.AssetCheckSeverity.ERROR)
    for each in found.values():
        assert (each.passed, each.severity) == (False, dg.AssetCheckSeverity.WARN)
        assert (each.metadata or {})[NOT_JUDGED].value is True


def test_a_gate_that_refuses_is_no_fault_of_a_refresh() -> None:
    asset = dg.AssetKey(["ties", "champion"])

    def fault(check: str) -> bool:
        severity = dg.AssetCheckSeverity.ERROR
        return is_fault(dg.AssetCheckEvaluation(asset, check, False, {}, severity=severity))

    assert not any(map(fault, NAMES))
    assert fault("could_be_judged")


def contender(scores: SuiteScores) -> Contender:
    validation, test = values_of(scores, "validation"), values_of(scores)

    def ask_from(values: Mapping[Item, float]):
        return lambda items: {item: values[item] for item in items}

    return Contender(ask_from(validation), ask_from(test))


def test_a_race_asks_losers_less_and_ends_with_a_challenge() -> None:
    champion, expert = made(0.6, 1), made(0.5, 2)
    contenders = {
        name: contender(made(skill, seed))
        for seed, (name, skill) in enumerate(
            {"poor": 0.1, "best": 0.97, "bad": 0.2, "fair": 0.5}.items(), start=3
        )
    }
    found = race(contenders, champion, {"e": expert}, Gate(allowed_loss=0.1))
    assert found.selection.best == "best"
    assert {"poor", "bad"} <= set(found.selection.left)
    assert found.challenge.verdict == "better"
    assert found.saved.asked < found.saved.total
    assert found.to_text().startswith("best is the best of 4 on validation items (")
    assert "against the champion it is better on test items" in found.to_text()
    losing = challenge_champion(contenders["poor"].test, champion, {"e": expert}, Gate())
    assert losing.verdict == "worse"
    assert losing.saved.share > 0.4
