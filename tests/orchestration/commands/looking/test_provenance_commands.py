"""`ronghe lineage`, `impact` and `reproduce`, and the card that a checkpoint leaves with."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from typer.testing import CliRunner, Result

from assets.work.records.store_cards import card_of
from assets.work.records.stored_names import resolve_name
from eval_ops.scores import scores_digest
from eval_ops.scores.scores import Score, SuiteScores
from merge_ops.errors import AncestryError, ReproductionError, SettingsError
from merge_ops.provenance.reproduction import from_card
from orchestration.commands.cli import app
from orchestration.settings import NAMES
from tests.assets.work.pedigree import Pedigree, make_pedigree

POINT = "simple[lambda=0.5]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pedigree:
    return make_pedigree(tmp_path_factory.mktemp("pedigree"))


@pytest.fixture(autouse=True)
def settings(made: Pedigree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RONGHE_STORE", made.store.uri)
    monkeypatch.setenv("RONGHE_CATALOG_NAME", "team")
    monkeypatch.setenv("RONGHE_THREADS", "1")
    monkeypatch.setenv("RONGHE_DEVICE", "cpu")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))


def ronghe(*arguments: object) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], env={"COLUMNS": "200"})


def done(*arguments: object) -> str:
    result = ronghe(*arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def fault_of(*arguments: object) -> str:
    """The message of a command that was refused."""
    result = ronghe(*arguments)
    assert isinstance(result.exception, ReproductionError | AncestryError | SettingsError)
    return str(result.exception)


def test_lineage_prints_a_tree_and_what_its_licences_ask(made: Pedigree) -> None:
    text = done("lineage", "chained[default]")
    tree = [re.sub(r" [0-9a-f]{12} ", " … ", line) for line in text.splitlines()[:6]]
    assert tree == [
        "chained[default]  checkpoint …  cc-by-nc-4.0",
        "├─ base  base  model …  apache-2.0",
        "├─ mixed  expert, weight 0.5  checkpoint …  llama3.1",
        "│  ├─ e1  expert, weight 1  model …  llama3.1",
        "│  └─ e2  expert, weight 3  model …  qwen",
        "└─ tuned  adapter, weight 0.5  model …  cc-by-nc-4.0",
    ]
    assert "NonCommercial 4.0 (cc-by-nc-4.0), decided by tuned" in text
    assert 'give it a name that begins with "Llama"' in text
    assert "no legal advice" in text
    assert re.search(r"cost: [\d.]+ s, [\d.]+ MB read, [\d.]+ MB written$", text, re.MULTILINE)
    document = json.loads(done("lineage", "chained[default]", "--json"))
    assert document["licence"]["licence"] == "cc-by-nc-4.0"
    assert document["made_by"]["plan"]["method"] == "task_arithmetic"
    assert document["cost"]["outputs"] == 1
    assert {node["name"] for node in document["nodes"]} >= {"base", "e1", "e2", "tuned", "mixed"}
    assert done("lineage", "e1").startswith("e1  model ")


def test_impact_prints_names_and_champions() -> None:
    text = done("impact", "e2")
    assert re.search(r"1\s+simple\[lambda=0\.5\]\s+[0-9a-f]{12}\s+simple\b", text)
    assert "champions: simple" in text
    assert "4 checkpoints" in text
    document = json.loads(done("impact", "e2", "--json"))
    assert [each["depth"] for each in document["descendants"]] == [1, 1, 1, 2]
    assert done("impact", "simple[lambda=1.0]").startswith("nothing in file://")


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---")[1])


def test_a_checkpoint_leaves_with_a_card_that_the_hub_takes(made: Pedigree) -> None:
    """Its licence is other where two hold; folders of a machine are no base_model."""
    digest = made.simple.checkpoints[0].artifact.digest
    scores = (
        Score("herbs", "test", "acc", 0.75, 0.1, 20, "1", 0.5, 0.9),
        Score("herbs", "validation", "acc", 0.7, 0.1, 20, "1", 0.5, 0.9),
    )
    suite = SuiteScores("quick", "s" * 64, scores)
    with made.store.attempt("scores") as attempt:
        attempt.write_bytes("scores.json", suite.to_json().encode())
        attempt.write_bytes("samples.parquet", b"")
        checkpoint = {"kind": "checkpoint", "digest": digest}
        named = {"checkpoint": checkpoint, "suite": {"name": "quick", "digest": "s" * 64}}
        found = attempt.publish(scores_digest(digest, suite.suite_digest), **named)
    made.store.point("simple/scores", "lambda=0.5", "scores", found.digest)
    text = card_of(made.store, resolve_name(made.store, POINT), "team/Llama-simple")
    assert text is not None
    card = ModelCard(text)
    data = card.data
    assert (data.license, data.license_name) == ("other", "llama3.1-and-qwen")
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-generation")
    assert (data.tags, data.language) == (["merge", "ronghe", "task_arithmetic"], ["zh"])
    assert data.base_model is None
    (result,) = data.eval_results or ()
    assert (result.dataset_type, result.metric_type, result.metric_value) == ("herbs", "acc", 0.75)
    told = json.loads(done("lineage", POINT, "--json"))["scores"]
    assert told == {"quick": found.digest}
    assert "AutoModelForCausalLM.from_pretrained('team/Llama-simple')" in text
    assert "**Built with Llama**" in text
    assert "no legal advice" in text
    assert str(made.folders["base"].parent) not in text
    assert from_card(text, "it").digest == digest
    recipe = yaml.safe_load(text.split("```yaml\n")[1].split("```")[0])
    assert [each["model"] for each in recipe["models"]] == ["e1", "e2"]
    assert recipe["parameters"] == {"lambda": 0.5}


def test_models_of_the_hub_are_its_base_models(made: Pedigree) -> None:
    fields = {"revision": "c" * 40, "resolved": f"hf://team/base@{'c' * 40}"}
    made.store.point("model", "base", "model", made.digest("base"), **fields)
    text = card_of(made.store, resolve_name(made.store, POINT))
    assert text is not None
    front = front_of(text)
    assert (front["base_model"], front["base_model_relation"]) == (["team/base"], "merge")
    assert f"| base | hf://team/base@{'c' * 40} |" in text


def test_what_is_in_the_store_is_made_again_to_the_byte(made: Pedigree) -> None:
    for name in (POINT, made.simple.checkpoints[1].artifact.digest[:12], "chained[default]"):
        document = json.loads(done("reproduce", name, "--json"))
        assert document["same"]
        assert {"model.safetensors", "config.json"} <= set(document["equal"])
    assert "files compared: 5, all the same" in done("reproduce", "simple/champion")
    assert "was pulled, not for what a merge made" in fault_of("reproduce", "e1")


@pytest.fixture(scope="module")
def restored(made: Pedigree, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("restored") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RONGHE_STORE", made.store.uri)
        patch.setenv("RONGHE_CATALOG_NAME", "team")
        done("restore", "chained[default]", "--out", folder)
    return folder


def without_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RONGHE_STORE", (tmp_path / "nothing").as_uri())


def test_a_card_is_enough_where_the_inputs_are_said(
    made: Pedigree, restored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "the same" in done("reproduce", restored)  # from the store
    without_store(monkeypatch, tmp_path)
    gone = fault_of("reproduce", restored / "README.md")
    assert re.search(r"input 'e1' with digest [0-9a-f]{64} is not here any more: artifact", gone)
    assert re.search(r"Say where it is with --model [0-9a-f]{12}=PLACE", gone)
    names = ("base", "e1", "e2", "tuned")
    given = [f"--model={made.digest(name)[:12]}={made.folders[name]}" for name in names]
    assert "the same" in done("reproduce", restored, *given)
    other = [*given[:1], f"--model={made.digest('e1')[:12]}={made.folders['e2']}", *given[2:]]
    assert "has another content now, with digest" in fault_of("reproduce", restored, *other)
    assert "is 'e1'; write NAME=PLACE" in fault_of("reproduce", restored, "--model", "e1")


def changed(restored: Path, folder: Path, old: str, new: str) -> Path:
    folder.mkdir()
    card = (restored / "README.md").read_text(encoding="utf-8")
    assert old in card
    (folder / "README.md").write_text(card.replace(old, new), encoding="utf-8")
    return folder / "README.md"


def test_every_way_it_cannot_be_made_has_its_sentence(restored: Path, tmp_path: Path) -> None:
    arithmetic = changed(restored, tmp_path / "a", "arithmetic: cpu", "arithmetic: cuda")
    assert "with the arithmetic of 'cuda', and here it would be" in fault_of(
        "reproduce", arithmetic
    )
    weight = changed(restored, tmp_path / "b", "      weight: 0.5", "      weight: 0.25")
    told = fault_of("reproduce", weight)
    assert "is planned as another one now" in told
    assert "the recipe beside it was changed, or its files were cut at another" in told
    release = changed(restored, tmp_path / "c", "      weight: 0.5", "      weight: 0.25")
    text = re.sub(r"^release: .*$", "release: 0.0.1", release.read_text(), flags=re.MULTILINE)
    release.write_text(text)
    assert "release 0.0.1 planned it, and this is" in fault_of("reproduce", release)
    later = changed(restored, tmp_path / "d", "format: 1", "format: 2")
    assert "is of format 2, and this release reads 1" in fault_of("reproduce", later)
    cut = changed(restored, tmp_path / "e", "\nsteps:", "\nstages:")
    assert "is not as Ronghe writes it" in fault_of("reproduce", cut)
    plain = tmp_path / "README.md"
    plain.write_text("# a card\n")
    assert "is no card of a merge by Ronghe, or one of an earlier" in fault_of("reproduce", plain)


def test_other_bytes_are_told_by_file_and_status(restored: Path, tmp_path: Path) -> None:
    digest = from_card((restored / "README.md").read_text(), "x").files["model.safetensors"]
    card = changed(restored, tmp_path / "a", digest, "f" * 64)
    result = ronghe("reproduce", card)
    assert result.exit_code == 1
    assert "different: checkpoint" in result.output
    assert "other bytes in model.safetensors" in result.output


def test_the_card_of_ronghe_merge_makes_it_again_beside_its_weights(
    made: Pedigree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps by folders, without any store; licences are those of all sources."""
    without_store(monkeypatch, tmp_path)
    base, e1, e2 = (made.folders[name] for name in ("base", "e1", "e2"))
    config = tmp_path / "recipe.yaml"
    config.write_text(
        f"name: mixed\nmerge_method: linear\nmodels: [{{model: {e1}}}, {{model: {e2}}}]\n"
        f"parameters: {{weight: 1.0}}\n---\nmerge_method: task_arithmetic\nbase_model: {base}\n"
        "models: [{model: mixed}]\nparameters: {weight: 0.5}\n"
    )
    out = tmp_path / "out"
    done("merge", config, out, "--no-verify")
    card = (out / "README.md").read_text(encoding="utf-8")
    assert front_of(card)["license_name"] == "llama3.1-and-qwen"
    assert len(from_card(card, "it").steps) == 2
    assert "files compared: 1, all the same" in done("reproduce", out)
    lonely = tmp_path / "lonely"
    lonely.mkdir()
    shutil.copy(out / "README.md", lonely)
    result = ronghe("reproduce", lonely)
    assert (result.exit_code, "there is no file to compare with" in result.output) == (1, True)
