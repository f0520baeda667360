"""A whole project in a folder: tiny random models, one suite, a catalog. Ready in a second.

The models are the checkpoint factory's, so everything from the observation to the champion runs for
real; only what they answer means nothing.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from orchestration.catalogs.catalog_name import named_settings
from orchestration.settings import Settings, load_settings
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter

SHAPE = factory.Shape("qwen2", layers=1, hidden=32, intermediate=48, tied=True)
TASK_ARITHMETIC = {
    "merge_method": "task_arithmetic",
    "base_model": "base",
    "experts": ["all-pairs", "all"],
    "parameters": {"weight": 1.0},
    "sweep": {"lambda": [0.5, 1.0]},
    "dtype": "float32",
    "suite": "colours",
}
SLERP = {
    "merge_method": "slerp",
    "base_model": "base",
    "experts": "all-pairs",
    "sweep": {"t": [0.25, 0.5, 0.75]},
    "dtype": "float32",
    "suite": "colours",
}
AVERAGE = {
    "merge_method": "linear",
    "experts": ["all-pairs", "all"],
    "parameters": {"weight": 1.0},
    "suite": "colours",
}


@dataclass(frozen=True)
class TinyProject:
    """A project's folder. Models are `base` and experts `e1`, `e2`, …"""

    root: Path
    store: str
    shape: factory.Shape = SHAPE

    @property
    def catalog(self) -> Path:
        """The catalog's folder."""
        return self.root / "catalog"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that make this the project."""
        return {
            "RONGHE_CATALOG": str(self.catalog),
            "RONGHE_STORE": self.store,
            "RONGHE_THREADS": "1",
            "RONGHE_DEVICE": "cpu",
            "DAGSTER_HOME": str(self.root / "dagster"),
        }

    def settings(self) -> Settings:
        """Those settings, as the program reads them."""
        return load_settings(self.environment)

    def opened_store(self) -> ArtifactStore:
        """The project's store, as its catalog names it."""
        settings = named_settings(self.settings())
        return ArtifactStore.open(settings.store, catalog=settings.catalog_name)

    def retrain(self, expert: str, seed: int) -> None:
        """Replace an expert's weights at one stroke, as an upstream update does."""
        tensors = factory.expert_tensors(factory.base_tensors(self.shape), seed)
        with tempfile.TemporaryDirectory(dir=self.root) as new:
            factory.write_weights(Path(new), tensors)
            for file in Path(new).iterdir():
                file.replace(self.root / "upstream" / expert / file.name)

    def train_adapter(self, name: str, seed: int) -> None:
        """Write a LoRA adapter below upstream/, or replace it by another of the same size."""
        base = factory.base_tensors(self.shape)
        tensors = lora_tensors(base, modules_of(base, "q_proj", "down_proj"), rank=4, seed=seed)
        with tempfile.TemporaryDirectory(dir=self.root) as new:
            write_adapter(Path(new), tensors, r=4, lora_alpha=4)
            folder = self.root / "upstream" / name
            folder.mkdir(exist_ok=True)
            for file in Path(new).iterdir():
                file.replace(folder / file.name)

    def write_recipe(self, name: str, recipe: Mapping[str, object]) -> None:
        """Add or replace one recipe."""
        path = self.catalog / "recipes" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(dict(recipe)), encoding="utf-8")


def make_project(
    root: Path,
    recipes: Mapping[str, Mapping[str, object]],
    experts: int = 3,
    store: str | None = None,
    shape: factory.Shape = SHAPE,
) -> TinyProject:
    """Write models, suite and catalog below `root`."""
    project = TinyProject(root, store or (root / "store").as_uri(), shape)
    names = [f"e{number + 1}" for number in range(experts)]
    base = factory.base_tensors(shape)
    factory.write_checkpoint(root / "upstream" / "base", base, shape)
    for number, name in enumerate(names):
        tensors = factory.expert_tensors(base, seed=number + 1)
        factory.write_checkpoint(root / "upstream" / name, tensors, shape)
    for folder in ("recipes", "suites", "items"):
        (project.catalog / folder).mkdir(parents=True)
    write_models(project.catalog, names)
    write_suite(project.catalog)
    for name, recipe in recipes.items():
        project.write_recipe(name, recipe)
    return project


def write_models(catalog: Path, experts: Sequence[str], adapters: Sequence[str] = ()) -> None:
    """models.yaml with one base, its experts, and LoRA adapters to it."""
    models: list[dict[str, str]] = [{"name": "base", "source": "../upstream/base"}]
    models += [
        {"name": n, "source": f"../upstream/{n}", "base": "base"} for n in (*experts, *adapters)
    ]
    for model in models:
        if model["name"] in adapters:
            model["kind"] = "lora"
    (catalog / "models.yaml").write_text(yaml.safe_dump({"models": models}), encoding="utf-8")


def write_suite(catalog: Path, items: int = 6) -> None:
    """A suite of one benchmark with so many items for each split."""
    rows = [
        {
            "id": f"{split}-{number}",
            "split": split,
            "prompt": f"question {number} of {split}: ",
            "choices": ["red", "green", "blue"],
            "answer": number % 3,
        }
        for split in ("validation", "test")
        for number in range(items)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (catalog / "items" / "colours.jsonl").write_text(text, encoding="utf-8")
    suite = {
        "name": "colours",
        "benchmarks": [{"name": "colour", "items": "../items/colours.jsonl"}],
    }
    (catalog / "suites" / "colours.yaml").write_text(yaml.safe_dump(suite), encoding="utf-8")
