"""`ronghe diff`, `verify-merge`, `inspect --against` and `protection-key`, as they are typed."""

import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from merge_ops.errors import MissingModelError, OutputError, SettingsError
from orchestration.commands.cli import app
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import LLAMA, write_family


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    base, experts = write_family(root, LLAMA, experts=3)
    models = "".join(f"- {{model: {e}, parameters: {{weight: 0.4}}}}\n" for e in experts[:2])
    text = f"merge_method: task_arithmetic\nbase_model: {base}\nmodels:\n{models}"
    (root / "sum.yaml").write_text(text)
    merge_in_process(root / "sum.yaml", root / "out")
    return root


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_diff(family: Path):
    same = run("diff", family / "base", family / "base")
    assert same.exit_code == 0
    assert "no difference" in same.output
    other = run("diff", family / "out", family / "expert-1", "--base", family / "base", "--json")
    assert other.exit_code == 1
    document = json.loads(other.stdout)
    assert document["whole"]["cosine"] == pytest.approx(0.5**0.5, abs=0.02)
    assert not document["same"]


def test_verify_merge(family: Path):
    whole = run("verify-merge", family / "out", "--recipe", family / "sum.yaml")
    assert whole.exit_code == 0
    assert "is what the recipe gives, byte for byte" in whole.output
    other = run("verify-merge", family / "expert-1", "--recipe", family / "sum.yaml", "--json")
    assert other.exit_code == 1
    assert json.loads(other.stdout)["verdict"] == "different"
    unclear = run("verify-merge", family / "out")
    assert isinstance(unclear.exception, SettingsError)
    assert "--recipe or --adapter with --base is needed" in str(unclear.exception)


def test_inspect_against(family: Path):
    against = ("--against", family / "expert-1", "--against", family / "expert-3")
    found = run("inspect", family / "out", *against, "--base", family / "base", "--json")
    assert found.exit_code == 1
    answers = [each["answer"] for each in json.loads(found.stdout)["candidates"]]
    assert answers == ["in it", "not found"]
    baseless = run("inspect", family / "out", *against)
    assert isinstance(baseless.exception, SettingsError)
    assert "--base is needed with --against" in str(baseless.exception)
    nowhere = run("diff", family / "out", family / "nowhere")
    assert isinstance(nowhere.exception, MissingModelError)


def test_a_key_is_for_its_owner_alone_and_is_never_overwritten(tmp_path: Path):
    made = run("protection-key", tmp_path / "my.key.json", "--kinds", "mlp")
    assert made.exit_code == 0
    assert (tmp_path / "my.key.json").stat().st_mode & 0o077 == 0
    assert json.loads((tmp_path / "my.key.json").read_text())["secret"] not in made.output
    again = run("protection-key", tmp_path / "my.key.json")
    assert isinstance(again.exception, OutputError)
    assert "is there already" in str(again.exception)
