"""Models for tests of arrangement: names and shapes of one's own, no architecture."""

from collections.abc import Mapping
from pathlib import Path

import torch

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.plan import Plan
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory

WIDTH = 4
PARTS = {"mlp.up_proj.weight": (6, WIDTH), "input_layernorm.weight": (WIDTH,)}
OUTSIDE = {
    "model.embed_tokens.weight": (10, WIDTH),
    "model.norm.weight": (WIDTH,),
    "lm_head.weight": (10, WIDTH),
}
Shapes = Mapping[str, tuple[int, ...]]


def layers(count: int, parts: Shapes = PARTS, stack: str = "model.layers") -> Shapes:
    """The tensors of a stack of layers."""
    return {f"{stack}.{n}.{part}": shape for n in range(count) for part, shape in parts.items()}


def write_model(
    folder: Path, seed: int, shapes: Shapes, **config: object
) -> dict[str, torch.Tensor]:
    """Writes weights and config.json; returns the weights."""
    folder.mkdir(parents=True)
    tensors = {name: factory.draw(name, shape, seed, 1.0) for name, shape in shapes.items()}
    factory.write_weights(folder, tensors)
    factory.write_json(folder / "config.json", {"model_type": "layered", **config})
    return tensors


def plan_of(text: str, root: Path, *names: str) -> Plan:
    """The plan of a recipe that names folders below `root`."""
    opened: dict[str, Checkpoint] = {
        name: open_checkpoint(name, FolderSource(root / name), name) for name in names
    }
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened)


def merged(text: str, root: Path) -> dict[str, torch.Tensor]:
    """What a recipe makes in which `$name` stands for a folder below `root`."""
    config = root / "study.yaml"
    config.write_text(text.replace("$", f"{root}/"))
    return factory.read_tensors(merge_in_process(config, root / "out"))
