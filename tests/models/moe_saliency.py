"""Tiny mixtures with tokenizers, and statistics of their moe_experts measured in this process."""

from collections.abc import Sequence
from pathlib import Path

from eval_ops.running.mixtures.moe_saliency import measure_moe
from merge_ops.calibration.moe_statistics import (
    LayerStatistics,
    MoeStatistics,
    write_moe_statistics,
)
from orchestration.commands.models.input_digests import content_digest
from tests.models.checkpoint_factory import write_tokenizer
from tests.models.moe_models import new_model

TEXTS = ("mint cools the lungs", "qi", "ginger warms, and rhubarb calms the spleen.", "qi")


def write_mixture(folder: Path, kind: str, seed: int = 1, **changes: object) -> Path:
    """A mixture of six moe_experts, two a token, with routers that tell tokens apart."""
    named = "num_local_experts" if kind == "mixtral" else "num_experts"
    model = new_model(kind, seed, **{named: 6, **changes})
    for name, parameter in model.named_parameters():
        if name.endswith("mlp.gate.weight"):
            parameter.data.mul_(20)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_statistics(path: Path, folder: Path, texts: Sequence[str] = TEXTS) -> MoeStatistics:
    """Statistics of a mixture, in a file and as they are."""
    measured = measure_moe(folder, texts)
    layers = {layer: LayerStatistics(**arrays) for layer, arrays in measured.layers.items()}
    found = MoeStatistics(layers, content_digest(folder), "k", measured.total, measured.chosen)
    write_moe_statistics(path, found)
    return found
