"""`ronghe ls`, `show`, `path`, `pull` and `withdraw`: names resolve, filters filter."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from typer.testing import CliRunner, Result

from assets.withdrawal_checks import CHECK
from orchestration.catalogs.catalog_name import named_settings
from orchestration.commands.cli import app
from orchestration.refreshing.instance import open_instance
from orchestration.settings import load_settings
from resources.errors import MissingArtifactError
from tests.assets.work.made_up_store import ScoredStore

WHY = "trained on the test items"


class Program:
    """`ronghe` on a made-up store, in this process."""

    def __init__(self, made: ScoredStore) -> None:
        self.made = made

    def __call__(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "80"})

    def json(self, *arguments: str):
        result = self(*arguments, "--json")
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)


@pytest.fixture
def program(made: ScoredStore) -> Program:
    return Program(made)


def test_ls_lists_models_champions_and_what_recipes_made(program: Program) -> None:
    rows = program.json("ls")
    assert [each["name"] for each in rows] == [
        "base", "e1", "e2", "ties/champion", "ties[x=0|e1+e2]", "ties[x=1|e1+e2]",
    ]  # fmt: skip
    assert rows[3]["digest"] == rows[5]["digest"]
    assert set(rows[4]["uses"]) == {"base", "e1", "e2"}
    text = program("ls").output
    *table, last = text.splitlines()
    assert max(map(len, table)) <= 80
    assert last.startswith("6 of 6 names in file:")
    assert "\x1b" not in text
    for row in rows:
        assert row["digest"][:12] in text
    assert [each["name"] for each in program.json("ls", "--kind", "champion")] == ["ties/champion"]
    assert {each["kind"] for each in program.json("ls", "--kind", "all")} >= {"scores", "model"}
    refused = program("ls", "--kind", "chempion")
    assert isinstance(refused.exception, Exception)
    assert "Did you mean 'champion'?" in str(refused.exception)


def test_ls_filters(program: Program) -> None:
    made = program.made
    made.store_model("e2", release=2)
    stale = program.json("ls", "--stale")
    assert [each["name"] for each in stale] == [
        "ties/champion", "ties[x=0|e1+e2]", "ties[x=1|e1+e2]",
    ]  # fmt: skip
    assert stale[1]["stale"] == "made from an earlier e2"
    assert program.json("ls", "--withdrawn") == []
    digest = made.digests["e1"]
    made.store.point("model", "e1", "model", digest, licence="apache-2.0")
    assert [each["name"] for each in program.json("ls", "--licence", "Apache-2.0")] == ["e1"]
    with made.store.attempt("checkpoint") as attempt:
        attempt.write_bytes("config.json", b"{}")
        merged = attempt.publish("ab" * 32, inputs=[digest])
    made.store.point("dare/merged_checkpoint", "k=1|e1", "checkpoint", merged.digest)
    assert [each["name"] for each in program.json("ls", "--uses", "e1")] == ["dare[k=1|e1]"]
    assert program.json("ls", "--uses", "e2") == []


def test_show_tells_content_scores_and_how_to_get_it(program: Program) -> None:
    view = program.json("show", "champion/ties")
    assert view["champion_of"] == ["ties"]
    assert set(view["called"]) == {"ties/champion", "ties[x=1|e1+e2]"}
    assert view["scores"]["one"]["mean"] == pytest.approx(90.0)
    assert set(view["models"]) == {"base", "e1", "e2"}
    assert Path(view["location"]).is_dir()
    text = program("show", "ties/champion").output
    assert "champion   of ties" in text
    assert "ronghe pull ties/champion OUT" in text
    assert program.json("show", "e1")["scores"]["one"]["mean"] == pytest.approx(50.0)


def test_every_name_resolves_to_the_same_content(program: Program) -> None:
    (row,) = program.json("ls", "--kind", "champion")
    for name in (
        "ties/champion", "champion/ties", "ties[x=1|e1+e2]", "ties/merged_checkpoint[x=1|e1+e2]",
        "ties e1+e2 x=1", row["digest"], row["digest"][:6],
    ):  # fmt: skip
        assert program.json("show", name)["digest"] == row["digest"], name
    assert program.json("show", "model[e1]")["digest"] == program.made.digests["e1"]


@pytest.mark.parametrize("command", ["show", "path", "restore", "materialize", "withdraw"])
def test_a_name_that_stands_for_nothing_is_one_error_with_what_is_near(
    program: Program, command: str
) -> None:
    more = {
        "restore": ["--out", "somewhere"],
        "withdraw": ["--because", "it is there no more"],
    }
    failed = program(command, "ties/champoin", *more.get(command, []))
    assert isinstance(failed.exception, MissingArtifactError)
    told = str(failed.exception)
    assert told.startswith("'ties/champoin' names nothing in artifact store")
    assert "Did you mean 'ties/champion'?" in told
    assert "Known are base, e1, e2, ties/champion;" in told


def test_a_short_digest_of_several_is_refused(program: Program) -> None:
    for end in ("1", "2"):
        with program.made.store.attempt("checkpoint") as attempt:
            attempt.write_bytes("config.json", end.encode())
            attempt.publish("abcdef" * 10 + "abc" + end)
    failed = program("show", "abcdef")
    assert isinstance(failed.exception, MissingArtifactError)
    assert "begins the digests of 2 artifacts" in str(failed.exception)


def test_path_prints_the_folder_alone_and_pull_writes_one(program: Program, tmp_path: Path) -> None:
    printed = program("path", "champion/ties")
    assert printed.exit_code == 0
    folder = Path(printed.stdout.removesuffix("\n"))
    assert (folder / "config.json").is_file()
    assert printed.stdout.count("\n") == 1
    out = tmp_path / "out"
    assert program.json("pull", "champion/ties", str(out))["out"] == str(out)
    assert (out / "config.json").read_bytes() == (folder / "config.json").read_bytes()


def test_withdraw_says_what_rests_on_it_and_who_goes(program: Program) -> None:
    made = program.made
    told = program.json("withdraw", "ties/champion", "--because", WHY)
    assert [each["name"] for each in told["touched"]] == ["ties/champion", "ties[x=1|e1+e2]"]
    (demotion,) = told["demotions"]
    assert demotion["champion"] is None
    listed = program.json("ls", "--withdrawn")
    assert [each["name"] for each in listed] == ["ties[x=1|e1+e2]"]
    assert WHY in program("ls").output
    assert "withdrawn" in program("show", "ties[x=1|e1+e2]").output
    warned = program("path", "ties[x=1|e1+e2]")
    assert Path(warned.stdout.strip()).is_dir()
    assert "rests on what was withdrawn" in warned.stderr
    gone = program("path", "ties/champion")
    assert isinstance(gone.exception, MissingArtifactError)
    assert "stands for nothing now" in str(gone.exception)
    assert "no champion: ties has none since" in program("champion", "ties").output
    undone = program("withdraw", demotion["before"], "--undo", "--because", "an error")
    assert "is withdrawn no more" in undone.output
    assert made.store.marks.withdrawn() == {}
    assert program("withdraw", "e1", "--because", " ").exit_code == 1


def test_dagsters_page_is_told(program: Program, tmp_path: Path) -> None:
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n", encoding="utf-8")
    told = program("withdraw", "ties/champion", "--because", WHY)
    assert told.exit_code == 0, told.output
    assert "warning" not in told.stderr
    merged, champion = (dg.AssetKey(["ties", each]) for each in ("merged_checkpoint", "champion"))
    with open_instance(named_settings(load_settings())) as instance:
        history = instance.event_log_storage.get_asset_check_execution_history
        (bad,) = history(dg.AssetCheckKey(merged, CHECK), limit=5)
        (good,) = history(dg.AssetCheckKey(champion, CHECK), limit=5)
        event = instance.get_latest_materialization_event(champion)
    assert bad.evaluation is not None
    assert (bad.evaluation.partition, bad.evaluation.passed) == ("x=1|e1+e2", False)
    assert WHY in str(bad.evaluation.metadata["problems"].value)
    assert good.evaluation is not None
    assert good.evaluation.passed  # there is no champion any more
    assert event is not None
    materialization = event.asset_materialization
    assert materialization is not None
    assert materialization.metadata["champion"].value == "none"
    assert WHY in str(materialization.metadata["decision"].value)

    for options, passed in ((["--undo"], True), ([], False), (["--undo"], True)):
        again = program("withdraw", bad_digest(program), *options, "--because", f"{WHY} {options}")
        assert again.exit_code == 0, again.output
        assert "warning" not in again.stderr
        with open_instance(named_settings(load_settings())) as instance:
            history = instance.event_log_storage.get_asset_check_execution_history
            last, *_ = history(dg.AssetCheckKey(merged, CHECK), limit=1)
        assert last.evaluation is not None
        assert last.evaluation.passed is passed


def bad_digest(program: Program) -> str:
    """The digest of the checkpoint that was the champion."""
    (row,) = (each for each in program.json("ls") if each["name"] == "ties[x=1|e1+e2]")
    return row["digest"]


def test_each_command_has_help_with_an_example(program: Program) -> None:
    for command in ("ls", "show", "path", "pull", "withdraw"):
        text = program(command, "--help").output
        assert "Example:" in text
        assert f"ronghe {command} " in text or "ronghe path" in text


def test_a_terminal_gets_colours_and_a_pipe_none(program: Program) -> None:
    made = program.made
    made.store.marks.withdraw(made.digests["e1"], WHY, "e1")
    code = "from orchestration.commands.cli import main; main()"
    piped = subprocess.run(
        [sys.executable, "-c", code, "ls"], capture_output=True, text=True, check=True
    )
    assert "\x1b" not in piped.stdout


def test_inspect_takes_names_and_digests_of_the_store(program: Program) -> None:
    """The checkpoints of this store have no weights, so it cannot be merged."""
    (row,) = (each for each in program.json("ls") if each["name"] == "ties[x=1|e1+e2]")
    for name in (row["name"], row["digest"], row["digest"][:12]):
        verdict = json.loads(program("inspect", name, "--json").output)
        assert verdict["location"].endswith(row["digest"])
        assert verdict["mergeable"] is False
