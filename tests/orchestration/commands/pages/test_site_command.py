"""`ronghe site`: the catalog as static pages in the store and in a folder."""

import json
from pathlib import Path

import pytest

from merge_ops.errors import OutputError, SettingsError
from orchestration.commands.pages.report_command import Wanted, run_report
from orchestration.commands.pages.site_command import renew_site, run_site
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project


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
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(OutputError, match=r"holds other files; give a folder that is new, empty"):
        run_site(tmp_path / "mine", as_json=False)
    with pytest.raises(OutputError, match="is no folder"):
        run_site(tmp_path / "mine" / "thesis.tex", as_json=False)
    assert not project.opened_store().digests("site")


def test_commands_that_change_something_render_a_site_that_is_there(
    project: TinyProject, tmp_path: Path
) -> None:
    assert renew_site(project.settings()) is None
    assert not project.opened_store().digests("site")
    run_site(tmp_path / "public", as_json=False)
    project.write_recipe("sums", {**AVERAGE, "experts": "all"})
    assert renew_site(project.settings()) is None
    assert len(project.opened_store().digests("site")) == 2
    (project.catalog / "models.yaml").write_text("models: 3\n")
    told = renew_site(project.settings())
    assert told is not None
    assert "the catalog site is as it was" in told


def test_a_report_is_one_file_and_writes_over_nothing_else(
    project: TinyProject, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = Wanted(tmp_path / "report.html", 20, None, "", "zh", False)
    for _ in range(2):  # an earlier report is written over
        run_report(wanted)
        assert "one file" in capsys.readouterr().out
    assert "报告" in wanted.html.read_text("utf-8") if wanted.html else False
    run_report(Wanted(None, 20, None, "", None, True))
    assert json.loads(capsys.readouterr().out)["catalog"].startswith("catalog-")
    run_report(Wanted(None, 20, None, "", None, False))
    assert "`ronghe report --html report.html`" in capsys.readouterr().out
    (tmp_path / "thesis.html").write_text("mine")
    with pytest.raises(OutputError, match="is there and is no report; give another name"):
        run_report(Wanted(tmp_path / "thesis.html", 20, None, "", None, False))
    with pytest.raises(OutputError, match="is in no folder that there is"):
        run_report(Wanted(tmp_path / "no" / "report.html", 20, None, "", None, False))
    with pytest.raises(SettingsError, match=r"--since is 'monday'; it must be a day"):
        run_report(Wanted(None, 20, None, "monday", None, False))
    with pytest.raises(SettingsError, match=r"--suite is 'zh'\. The catalog has colours"):
        run_report(Wanted(None, 20, "zh", "", None, False))
