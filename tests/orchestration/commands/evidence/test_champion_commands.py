"""`ronghe compare`, `promote`, `rollback` and `champion`: what they print and refuse."""

import json
from dataclasses import replace
from typing import Any

import pytest

from assets.work.ranking.crowning import Crowning
from assets.work.ranking.named_checkpoints import NamedCheckpoint, find_checkpoint
from eval_ops.scores.comparison import Comparison
from eval_ops.scores.decision import Decision, GateCheck
from merge_ops.errors import SettingsError
from orchestration.commands import catalog_commands
from orchestration.commands.evidence import champion_commands, leaderboard_command, routing_command
from orchestration.commands.evidence.champion_commands import (
    _print_gate,
    _undo,
    run_promote,
    run_rollback,
    show_champion,
)
from orchestration.commands.evidence.compare_command import run_compare
from orchestration.commands.store_tables import make_console
from orchestration.commands.upkeep import store_commands, verify_command
from resources.errors import MissingArtifactError
from tests.assets.work.made_up_store import ScoredStore


def test_compare_is_a_table_by_benchmark_and_a_verdict(
    made: ScoredStore, capsys: pytest.CaptureFixture[str]
) -> None:
    run_compare("ties/champion", "ties[x=0|e1+e2]", None)
    text = capsys.readouterr().out
    assert "suite one: A is better than B" in text
    lines = [line.split() for line in text.splitlines()]
    (row,) = [line for line in lines if line[:1] == ["b"]]
    assert row[1:4] == ["90.0", "70.0", "+20.0"]
    assert row[-2:] == ["better", "60"]
    run_compare("e1", "e1", "one")
    assert "suite one: undecided" in capsys.readouterr().out


def test_compare_says_what_has_no_scores(
    made: ScoredStore, capsys: pytest.CaptureFixture[str]
) -> None:
    made.write_suite("other")
    with pytest.raises(SystemExit, match="1"):
        run_compare("e1", "e2", "one")
    assert "suite one: no scores of e1 and e2; `ronghe refresh`" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="1"):
        run_compare("e1", "e2", None)
    told = "neither of e1 and e2 has scores on one; `ronghe refresh` scores what the catalog lists"
    assert told in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SettingsError, match=r"--suite is 'on'\. Did you mean 'one'\?"):
        run_compare("e1", "e2", "on")


def test_promote_rollback_and_history(
    made: ScoredStore, capsys: pytest.CaptureFixture[str]
) -> None:
    run_promote("ties e1+e2 x=0", "  it is\n polite ", None)
    text = capsys.readouterr().out
    assert "ties e1+e2 x=0 is the champion of ties" in text
    assert "the gate would not promote it:" in text
    assert "because it is polite" in text
    assert "to undo it: ronghe rollback ties --because" in text
    show_champion("ties", history=True)
    text = capsys.readouterr().out
    assert "because  it is polite" in text
    assert text.count("e1+e2 x=") >= 2
    run_rollback("ties", "the board said so")
    text = capsys.readouterr().out
    assert "the champion of ties is again" in text
    assert "to undo it: ronghe promote " in text
    show_champion("ties", history=False)
    assert "rollback" in capsys.readouterr().out


def test_a_first_champion_cannot_be_undone_and_only_what_fails_is_told(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """`rollback` would refuse, so it is not offered; a check that passes stops nothing."""
    checks = (
        GateCheck("mean_is_better", True, True, "the mean is above", {}),
        GateCheck("no_benchmark_lost", False, True, "a is lost", {}),
        GateCheck("enough_items", False, True, "not looked at", {}, judged=False),
    )
    nothing = Comparison("better", 0.1, 0.0, 0.2, 0.95, 9)
    decision = Decision(False, ("the mean is above", "a is lost"), "e1", 1, 0, nothing, (), checks)
    _print_gate(make_console(), decision)
    assert capsys.readouterr().out.split("\n")[1:] == ["  a is lost", ""]
    champion: Any = None
    first = Crowning(champion, None, None, True, {"event": "promotion"})
    assert _undo("ties", first) is None
    later = replace(first, before="f" * 64)
    assert _undo("ties", later) == "ronghe rollback ties --because …"


def test_a_stale_champion_is_told(made: ScoredStore, capsys: pytest.CaptureFixture[str]) -> None:
    made.store_model("e2", release=2)
    told = "it was made from an earlier e2; `ronghe refresh` merges it again"
    show_champion("ties", history=False)
    assert f"stale: {told}" in capsys.readouterr().out
    leaderboard_command.leaderboard()
    text = capsys.readouterr().out
    assert f"stale: the champion of ties: {told}" in text
    assert "(champion)" in text


def test_every_command_has_json(
    made: ScoredStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*arguments: object) -> dict[str, Any]:
        command, *rest = arguments
        assert callable(command)
        command(*rest, as_json=True)
        return json.loads(capsys.readouterr().out)

    compared = told(run_compare, "ties/champion", "ties[x=0|e1+e2]", None)
    (suite,) = compared["suites"]
    (row,) = suite["benchmarks"]
    assert (row["benchmark"], row["a_is"], row["items"]) == ("b", "better", 60)
    assert row["difference"] == pytest.approx(0.2)
    assert suite["mean"]["low"] <= 0.2 <= suite["mean"]["high"]
    before = told(show_champion, "ties", True)
    assert (before["stale"], before["missing"], len(before["history"])) == (None, False, 1)
    promoted = told(run_promote, "ties e1+e2 x=0", "polite", None)
    assert promoted["before"] == before["champion"]
    assert (promoted["changed"], promoted["because"]) == (True, "polite")
    assert promoted["gate"]["promote"] is False
    assert told(run_rollback, "ties", "no")["champion"] == before["champion"]
    assert len(told(show_champion, "ties", True)["history"]) == 3
    monkeypatch.setattr(routing_command, "contest_of", lambda _: made.contest)
    (table,) = told(routing_command.run_routing, None)["suites"]
    assert (table["suite"], table["confidence"]) == ("one", 0.95)
    assert table["rows"][0].keys() >= {"name", "value", "low", "high", "verdict", "models"}


def test_commands_on_the_store_have_json(
    made: ScoredStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store_commands.history("ties/champion", None, as_json=True)
    (ref,) = json.loads(capsys.readouterr().out)["refs"]
    assert (ref["partition"], ref["vacant"], len(ref["history"])) == (None, False, 1)
    assert ref["history"][0]["kind"] == "checkpoint"
    store_commands.collect(True, "24h", as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["dry_run"], told["garbage"], told["bytes"]) == (True, [], 0)
    verify_command.verify([], None, as_json=True)
    sound = json.loads(capsys.readouterr().out)
    assert (sound["not_as_published"], sound["names_and_notes"]) == ([], [])
    spoilt = made.store.get("model", made.digests["e1"])
    made.store.place.put(spoilt.key("config.json"), b"spoilt")
    with pytest.raises(SystemExit, match="1"):
        verify_command.verify([], None, as_json=True)
    (bad,) = json.loads(capsys.readouterr().out)["not_as_published"]
    assert (bad["kind"], bad["digest"]) == ("model", made.digests["e1"])
    verify_command.verify([], None, repair=True, as_json=True)
    assert json.loads(capsys.readouterr().out)["set_aside"]
    store_commands.adopt(None, True, as_json=True)
    assert json.loads(capsys.readouterr().out)["moved"] == []


def test_what_the_store_has_is_compared_by_every_name(made: ScoredStore) -> None:
    def found(name: str) -> NamedCheckpoint:
        return find_checkpoint(made.store, made.contest, name)

    first = made.digests["e1"]
    made.store_model("e1", release=2)
    assert found("model[e1]").digest == found("e1").digest == made.digests["e1"] != first
    earlier = found(first[:10])  # no name points to it any more
    assert (earlier.digest, earlier.recipe) == (first, None)
    step = made.candidate("y=0|e1+e2", 0.5)
    made.store.point("ties/step/own", "y=0|e1+e2", "checkpoint", step)
    assert found("ties/step/own[y=0|e1+e2]").digest == step
    assert found("ties[y=0|e1+e2]").digest == step  # `ronghe ls` prints it; no recipe makes it now
    with pytest.raises(MissingArtifactError, match="'ties/nothing' stands for no checkpoint"):
        found("ties/nothing")
    with pytest.raises(MissingArtifactError, match=r"'ties' \(no recipe makes it\)") as told:
        find_checkpoint(made.store, made.contest, "e1", "ties")
    assert "Did you mean" not in str(told.value)  # itself


def test_what_cannot_be_is_refused(made: ScoredStore) -> None:
    with pytest.raises(SettingsError, match="--because is empty"):
        run_promote("ties/champion", "  ", None)
    with pytest.raises(SettingsError, match="--because is too long"):
        run_rollback("ties", "x" * 3000)
    with pytest.raises(SettingsError, match=r"RECIPE is 'tie'\. Did you mean 'ties'"):
        run_rollback("tie", "why not")
    with pytest.raises(SettingsError, match="--recipe is needed: e1 is made by these"):
        run_promote("e1", "why not", None)
    with pytest.raises(MissingArtifactError, match="recipe 'dare' has no champion"):
        show_champion("dare", history=False)


def test_a_webhook_that_fails_is_a_warning(
    made: ScoredStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(champion_commands, "announce", lambda event: f"no {event['event']}")
    run_promote("ties e1+e2 x=0", "polite", None)
    assert "warning: no promotion" in capsys.readouterr().out


def test_the_commands_are_registered() -> None:
    registered = {each.callback.__name__ for each in catalog_commands.app.registered_commands}
    assert {"compare", "promote", "rollback", "champion"} <= registered
