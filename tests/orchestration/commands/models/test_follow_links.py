"""Links out of a model's folder on the command line: refused by name, or followed where asked."""

import json
from pathlib import Path

import pytest

from merge_ops.errors import CheckpointError
from orchestration.commands.looking.inspect_command import show_model
from orchestration.commands.merging.merge_command import MergeOptions, run_merge
from orchestration.commands.merging.plan_command import show_plan
from orchestration.commands.models.local_models import MAX_ADAPTERS, folders_of
from tests.models import checkpoint_factory as factory

SHAPE = factory.Shape("llama", layers=1, hidden=32, intermediate=48)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe of a model whose licence and code are links to files beside it."""
    family = factory.write_family(tmp_path, SHAPE, experts=1)
    (tmp_path / "text").write_text("of the one who runs this")
    for name in ("LICENSE", "modeling_x.py"):
        (family.base / name).symlink_to("../text")
    models = [{"model": str(folder)} for folder in (family.base, tmp_path / "expert-1")]
    path = tmp_path / "r.yaml"
    document = {"merge_method": "linear", "models": models, "parameters": {"weight": 0.5}}
    path.write_text(json.dumps(document))
    return path


def test_a_merge_takes_nothing_from_beside_the_folder(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, base = recipe.parent / "out", recipe.parent / "base"
    options = MergeOptions("1", "cpu", "64MiB", "5GB", verify=False)
    for command in (lambda: run_merge(recipe, out, options), lambda: show_plan(recipe, False)):
        with pytest.raises(CheckpointError, match="LICENSE is a link out of the folder, to "):
            command()
    assert not out.exists()
    with pytest.raises(SystemExit):
        show_model(str(base), as_json=True)
    assert json.loads(capsys.readouterr().out)["kind"] == "unsafe"


def test_links_are_followed_in_ones_own_folders(recipe: Path) -> None:
    out, base = recipe.parent / "out", recipe.parent / "base"
    options = MergeOptions("1", "cpu", "64MiB", "5GB", verify=False, follow_links=True)
    run_merge(recipe, out, options)
    assert (out / "LICENSE").read_text() == "of the one who runs this"
    assert not (out / "LICENSE").is_symlink()
    show_plan(recipe, as_json=False, follow_links=True)
    show_model(str(base), as_json=True, follow_links=True)


def test_thousands_of_adapters_on_one_model_are_refused() -> None:
    assert folders_of("base+a+b") == ["base", "a", "b"]
    with pytest.raises(CheckpointError, match=f"has more than {MAX_ADAPTERS} adapters on it"):
        folders_of("base" + "+a" * 2000)
