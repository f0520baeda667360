"""A small project that attacks are tried on: two experts, a recipe file, a catalog with its store.

Everything is made once and copied for each case, so that a case costs milliseconds.
"""

import json
import os
import random
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import load_file

from tests.child_forks import OWNER
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project

TOKEN = "XyZZy-secret-of-the-machine"
MODELS = ("base", "e1", "e2")
VERBS = ("plan", "inspect", "merge", "verify", "refresh")
SHAPE = factory.Shape("qwen2", layers=1, hidden=16, intermediate=24, heads=2, kv_heads=1, tied=True)


@dataclass
class Case:
    """One attack on one command.

    `root` is the case's own folder; `secret` is a file outside of it. `sound` says that the
    weights are still those of the project, so that a merge that succeeds must give their mean.
    `stop` is a signal and the second at which it is sent, `disk` the bytes of the output's disk.
    """

    root: Path
    verb: str
    rng: random.Random
    secret: Path
    sound: bool = True
    stop: tuple[int, float] | None = None
    disk: int | None = None
    options: list[str] = field(default_factory=list[str])
    out: str = "out"

    @property
    def upstream(self) -> Path:
        """The folder of the models."""
        return self.root / "upstream"

    @property
    def recipe(self) -> Path:
        """The recipe of plan and merge."""
        return self.root / "recipe.yaml"

    @property
    def store(self) -> Path:
        """The artifact store of verify and refresh."""
        return self.root / "store"

    @property
    def output(self) -> Path:
        """Where a merge writes."""
        return self.root / "results" / self.out

    def model(self) -> Path:
        """A model's folder, drawn."""
        return self.upstream / self.rng.choice(MODELS)

    def command(self) -> list[str]:
        """The arguments after `ronghe`."""
        if self.verb == "inspect":
            return ["inspect", str(self.model()), *self.options]
        if self.verb == "plan":
            return ["plan", str(self.recipe), *self.options]
        if self.verb == "merge":
            return ["merge", str(self.recipe), str(self.output), "--no-verify", *self.options]
        return [self.verb, *self.options]

    def environment(self) -> dict[str, str]:
        """The variables of the command: the project's, and a token that nobody may pass on.

        Of tests, who their processes belong to: their limited children are forks, too.
        """
        project = TinyProject(self.root, self.store.as_uri())
        mine = {"HF_TOKEN": f"hf_{TOKEN}", "HF_HUB_OFFLINE": "1", "HOME": str(self.root / "home")}
        path = {"PATH": os.environ["PATH"], "TMPDIR": str(self.root / "tmp")}
        passed = {OWNER: os.environ[OWNER]} if OWNER in os.environ else {}
        return {**path, **passed, **mine, **project.environment}


def make_template(folder: Path) -> None:
    """Write the project, and bring its catalog up to date once."""
    from orchestration.refreshing.instance import open_instance
    from orchestration.refreshing.refresh import refresh

    project = make_project(folder, {"average": AVERAGE}, experts=2, shape=SHAPE)
    models = project.catalog / "models.yaml"
    models.write_text("name: hostile\n" + models.read_text())  # the same in each copy
    with open_instance(project.settings()) as instance:
        assert refresh(instance, project.settings()).failures == []
    write_recipe(folder / "recipe.yaml", {})


def write_recipe(path: Path, changes: Mapping[str, object]) -> None:
    """Write the recipe: the mean of the experts."""
    models = [{"model": f"upstream/{name}", "parameters": {"weight": 0.5}} for name in MODELS[1:]]
    recipe = {"merge_method": "linear", "models": models, **changes}
    path.write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")


def copy_template(template: Path, root: Path, verb: str) -> None:
    """Copy what a command needs."""
    root.mkdir()
    shutil.copytree(template / "upstream", root / "upstream")
    shutil.copy(template / "recipe.yaml", root / "recipe.yaml")
    if verb in ("verify", "refresh"):
        for name in ("catalog", "store", "dagster"):
            shutil.copytree(template / name, root / name)
    for name in ("results", "tmp", "home"):
        (root / name).mkdir()


def expected(template: Path) -> dict[str, np.ndarray]:
    """The mean of the experts, in float64, rounded once."""
    first, second = (
        load_file(template / "upstream" / name / "model.safetensors") for name in MODELS[1:]
    )
    return {
        name: ((value.astype(np.float64) + second[name]) / 2).astype(np.float32)
        for name, value in first.items()
    }


def wrong_values(output: Path, right: Mapping[str, np.ndarray]) -> str | None:
    """Say how a merged checkpoint differs from what it must be; None where it does not."""
    merged = load_file(output / "model.safetensors")
    if set(merged) != set(right):
        return f"tensors {sorted(set(merged) ^ set(right))[:4]}"
    for name, value in right.items():
        if not np.allclose(merged[name], value, rtol=1e-6, atol=1e-9):
            return f"{name} has other values"
    return None


def read_json(path: Path) -> dict[str, object]:
    """Read a JSON object."""
    document = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document
