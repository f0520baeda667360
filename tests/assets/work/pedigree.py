"""A store with merges of models that state licences: two steps, a sweep, an adapter, a champion."""

from dataclasses import dataclass
from pathlib import Path

from assets.work import names
from assets.work.merging.merging import MergedSet, MergeJob, merge_set, point_at
from assets.work.merging.whole_models import whole_model
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.recipes import Steps, load_steps
from merge_ops.stream import StreamSettings
from resources.store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.orchestration.projects.tiny_project import SHAPE

SETTINGS = StreamSettings(threads=1, device="cpu")
SIMPLE = """
merge_method: task_arithmetic
base_model: base
models:
  - {model: e1, parameters: {weight: 0.75}}
  - {model: e2, parameters: {weight: 0.25}}
sweep: {lambda: [0.5, 1.0]}
"""
CHAINED = """
name: mixed
merge_method: linear
models: [{model: e1, parameters: {weight: 1.0}}, {model: e2, parameters: {weight: 3.0}}]
---
merge_method: task_arithmetic
base_model: base
models: [{model: mixed}, {model: tuned}]
parameters: {weight: 0.5}
"""
CARDS = {
    "base": "---\nlicense: apache-2.0\nlanguage: [zh]\n---\n",
    "e1": "---\nlicense: llama3.1\nlanguage: [zh]\n---\n",
    "e2": "---\nlicense: other\nlicense_name: qwen\nlanguage: [zh]\n---\n",
}


@dataclass(frozen=True)
class Pedigree:
    """A pedigree is the store, the folders of its models, and what was merged."""

    store: ArtifactStore
    folders: dict[str, Path]
    simple: MergedSet
    chained: MergedSet

    def digest(self, model: str) -> str:
        """Digest of what a model's name stands for."""
        ref = self.store.ref("model", model)
        assert ref is not None
        return ref.digest


def make_pedigree(root: Path) -> Pedigree:
    """Pull a base, two experts and an adapter, merge them, and crown one result."""
    family = factory.write_family(root / "models", SHAPE)
    folders = dict(zip(("base", "e1", "e2"), (family.base, *family.experts), strict=True))
    for name, text in CARDS.items():
        (folders[name] / "README.md").write_text(text, encoding="utf-8")
    base = factory.base_tensors(SHAPE)
    folders["tuned"] = root / "models" / "tuned"
    folders["tuned"].mkdir()
    tensors = lora_tensors(base, modules_of(base, "q_proj"), rank=2, seed=5)
    write_adapter(folders["tuned"], tensors, r=2, lora_alpha=2)
    store = ArtifactStore.open((root / "store").as_uri(), root / "cache", catalog="team")
    for name, folder in folders.items():
        kind = "lora" if name == "tuned" else "full"
        licence = "cc-by-nc-4.0" if name == "tuned" else None
        above = None if name == "base" else "base"
        entry = UpstreamModel(name, str(folder), above, kind=kind, licence=licence, store="full")
        pull_model(store, entry, Path())
    whole_model(store, "tuned", "base", SETTINGS)
    simple = merged(store, steps_of(root, "simple", SIMPLE), "simple")
    chained = merged(store, steps_of(root, "chained", CHAINED), "chained")
    best = simple.checkpoints[0].artifact
    store.point(names.champion("simple"), None, best.kind, best.digest, experts="", coefficient="")
    return Pedigree(store, folders, simple, chained)


def steps_of(root: Path, name: str, text: str) -> Steps:
    """Read a recipe's file."""
    path = root / f"{name}.yaml"
    path.write_text(text, encoding="utf-8")
    return load_steps(path)


def merged(store: ArtifactStore, steps: Steps, name: str) -> MergedSet:
    """Merge every point of a recipe without expert sets, and point its name there."""
    points = {each.id: each.id for each in steps.result.coefficients()}
    licences = {"tuned": "cc-by-nc-4.0"}
    asset = names.merged_checkpoint(name)
    job = MergeJob(steps, "base", "", points, asset, licences)
    found = merge_set(store, job, SETTINGS)
    point_at(store, job, found, "run")
    return found
