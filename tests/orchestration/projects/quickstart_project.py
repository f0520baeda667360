"""The quickstart as a project in a folder, its models trained for a few steps only.

Models, suite, recipes and items are those of `make demo`, but there are fewer items, and what the
models answer means nothing. Their layers are wider, so that a checkpoint goes to S3 in parts.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import yaml

from examples.quickstart.recipe import Recipe, Schedule, Shape
from examples.quickstart.skills import SPLITS
from examples.quickstart.train import EXPERTS, prepare
from tests.merges.merging import ROOT
from tests.orchestration.projects.tiny_project import TinyProject

FEW_STEPS = Recipe(
    shape=Shape(layers=2, intermediate=5120),  # 17 MB
    base=Schedule(steps=2, rate=3e-3, batch=8),
    experts={name: Schedule(steps=2, rate=2e-3, batch=8, replay=0.5) for name in EXPERTS},
)
ITEMS = 12  # of each benchmark and split
SET = "+".join(sorted(EXPERTS))


def make_quickstart(root: Path, store: str) -> TinyProject:
    """Train the models and copy the catalog, without its recipes."""
    # One process: importing torch takes longer than these steps.
    prepare(root / ".ronghe", recipe=FEW_STEPS, workers=1)
    for file in (root / ".ronghe" / "suites").iterdir():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        splits = [[each for each in lines if json.loads(each)["split"] == name] for name in SPLITS]
        file.write_text("".join(line for lines in splits for line in lines[:ITEMS]), "utf-8")
    shutil.copytree(
        ROOT / "catalog",
        root / "catalog",
        ignore=lambda _, names: [n for n in names if n == "recipes"],
    )
    (root / "catalog" / "recipes").mkdir()
    return TinyProject(root, store)


def quickstart_recipe(name: str) -> Mapping[str, object]:
    """One of the quickstart's recipes, for the set of all experts only."""
    text = (ROOT / "catalog" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    return {**yaml.safe_load(text), "experts": "all"}
