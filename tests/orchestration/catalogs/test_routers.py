"""`router` and `convert` in a catalog: what cannot be done for every set is told at once."""

import re
from pathlib import Path

import pytest
import yaml

from orchestration.catalogs import load_catalog
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    TASK_ARITHMETIC,
    write_models,
    write_suite,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    for folder in ("recipes", "suites", "items"):
        (tmp_path / folder).mkdir()
    write_models(tmp_path, ["e1", "e2", "e3"])
    write_suite(tmp_path)
    return tmp_path


def told(catalog: Path, recipe: dict[str, object]) -> str:
    path = catalog / "recipes" / "mixture.yaml"
    path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return "\n".join(map(str, load_catalog(catalog).broken.values()))


def test_what_every_set_has_is_taken(catalog: Path) -> None:
    pairs = [["e1", "e2"], ["e1", "e3"]]
    sound = {**TASK_ARITHMETIC, "experts": pairs, "router": "expert:e1"}
    assert told(catalog, sound) == ""
    assert told(catalog, {**TASK_ARITHMETIC, "experts": pairs, "router": "base"}) == ""


@pytest.mark.parametrize(
    ("recipe", "fault"),
    [
        (
            {**TASK_ARITHMETIC, "experts": [["e1", "e2"], ["e2", "e3"]], "router": "expert:e1"},
            r"router takes routers from 'e1', which is not in the set e2\+e3; choose sets that",
        ),
        (
            {**AVERAGE, "experts": [["e1", "e2"]], "router": "base"},
            r"router is 'base', and linear with `experts` has none; write `router: expert:NAME`",
        ),
        (
            {"vocabulary": {"extend": "tokens.json"}, "models": [{"model": "e1"}]},
            r"vocabulary.extend is the file 'tokens.json', which no store keeps",
        ),
        (
            {
                "moe": {"keep": 2, "method": "reap", "statistics": "s"},
                "models": [{"model": "e1"}],
            },
            r"moe.statistics is 's', a file that no store keeps: write `texts:` with a file",
        ),
    ],
)
def test_what_a_set_lacks_is_a_fault(catalog: Path, recipe: dict[str, object], fault: str) -> None:
    found = told(catalog, recipe)
    assert re.search(fault, found), found
