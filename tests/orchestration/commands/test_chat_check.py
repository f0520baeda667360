"""What `ronghe check` says of models that a suite asks by chat."""

import json
from pathlib import Path

import yaml

from merge_ops.checkpoints import FolderSource, open_checkpoint
from orchestration.catalogs import load_catalog
from orchestration.commands.starting.chat_check import chat_faults
from tests.orchestration.projects.tiny_project import AVERAGE, make_project


def test_models_without_a_chat_template_are_told_before_any_work(tmp_path: Path) -> None:
    project = make_project(tmp_path, {"average": AVERAGE}, experts=2)
    suite = project.catalog / "suites" / "colours.yaml"
    opened = {
        folder.name: open_checkpoint(folder.name, FolderSource(folder))
        for folder in (tmp_path / "upstream").iterdir()
    }
    assert list(chat_faults(load_catalog(project.catalog), opened)) == []
    document = yaml.safe_load(suite.read_text(encoding="utf-8"))
    document["benchmarks"][0]["chat_template"] = True
    suite.write_text(json.dumps(document), encoding="utf-8")
    catalog = load_catalog(project.catalog)
    ((recipe, told),) = chat_faults(catalog, opened)
    assert recipe == "average"
    assert "suite colours puts the prompts of colour into a chat template" in told
    assert "base, e1, e2 have none; write chat_template.jinja into" in told
    for folder in (tmp_path / "upstream").iterdir():
        if folder.name != "e2":
            (folder / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
            opened[folder.name] = open_checkpoint(folder.name, FolderSource(folder))
    ((_, told),) = chat_faults(catalog, opened)
    assert ", and e2 has none; write" in told
    del opened["e2"]  # far away: what it has is not known
    assert list(chat_faults(catalog, opened)) == []
