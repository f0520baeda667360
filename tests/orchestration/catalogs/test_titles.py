"""What recipes and models are called for people is read from the files, and said where it helps."""

from pathlib import Path

import pytest

from assets.work.sharing.cards import words_of_catalog
from orchestration.catalogs.titles import read_titles
from orchestration.commands.evidence import leaderboard_command
from tests.assets.work.made_up_store import ScoredStore
from tests.orchestration.commands.conftest import made as made_with_names

made = made_with_names
"""A made-up store with a leaderboard and a champion, which the commands find."""


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "目录册"
    (folder / "recipes").mkdir(parents=True)
    steps = "merge_method: linear\nname: first\ntitle: 第一步\n---\ntitle: 中药合并 \n"
    (folder / "recipes" / "ties.yaml").write_text(steps, "utf-8")
    (folder / "recipes" / "plain.yaml").write_text("merge_method: linear\n", "utf-8")
    (folder / "recipes" / "broken.yaml").write_text("title: [\n", "utf-8")
    models = "models:\n- {name: e1, title: '诗词|模型'}\n- {name: base}\n- 3\n"
    (folder / "models.yaml").write_text(models, "utf-8")
    monkeypatch.setenv("RONGHE_CATALOG", str(folder))
    return folder


def test_titles_are_those_of_the_result_and_of_models(catalog: Path, tmp_path: Path) -> None:
    titles = read_titles(catalog)
    assert titles.recipes == {"ties": "中药合并"}
    assert titles.models == {"e1": "诗词|模型"}
    assert read_titles(tmp_path / "nothing").recipes == {}


def test_the_leaderboard_says_them_below(
    made: ScoredStore, catalog: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaderboard_command.leaderboard()
    lines = capsys.readouterr().out.splitlines()
    assert "ties: 中药合并" in lines
    assert "e1: 诗词|模型" in lines


def test_a_card_says_them_beside_the_names(made: ScoredStore) -> None:
    ref = made.store.ref("ties/merged_checkpoint", "x=1|e1+e2")
    titles = {"recipes": {"ties": "中药合并"}, "models": {"e1": "诗词|模型"}}
    words = words_of_catalog(ref, titles)
    assert "this is `ties/merged_checkpoint` (中药合并), and" in words
    assert "| e1 (诗词\\|模型) | not stated |" in words
    assert "(" not in words_of_catalog(ref, {})
