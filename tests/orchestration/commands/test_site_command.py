"""`ronghe site`: the catalog as static pages in the store and in a folder."""

import json
from pathlib import Path

import pytest

from merge_ops.errors import OutputError
from orchestration.commands.site_command import run_site
from tests.orchestration.tiny_project import AVERAGE, TinyProject, make_project


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A catalog of which nothing is made yet, and the environment that names it."""
    made = make_project(tmp_path / "project", {"average": AVERAGE}, experts=2)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    return made


def test_a_site_is_rendered_copied_and_found_unchanged(
    project: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "public"
    run_site(out, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["index"] == str(out / "index.html")
    assert told["unchanged"] is False
    assert told["files"] == sum(path.is_file() for path in out.rglob("*"))
    html = (out / "models.html").read_text("utf-8")
    assert ">e1</a>" in html
    (out / "data" / "board-9.js").write_text("old")
    run_site(out, as_json=False)
    assert "nothing has changed since it was rendered" in capsys.readouterr().out
    assert not (out / "data" / "board-9.js").exists()
    store = project.opened_store()
    assert len(store.digests("site")) == 1
    run_site(None, as_json=False)
    assert "index.html" in capsys.readouterr().out


def test_a_folder_of_other_files_is_left_alone(project: TinyProject, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"holds other files; give a folder that is new, empty"):
        run_site(tmp_path / "home", as_json=False)
    with pytest.raises(OutputError, match="is no folder"):
        run_site(tmp_path / "home" / "thesis.tex", as_json=False)
    assert not project.opened_store().digests("site")
