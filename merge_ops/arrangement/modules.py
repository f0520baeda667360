"""The parts of models with several towers, told from tensor names: no architecture table.

mergekit's names (`text_decoder`, `vision_tower`, `multi_modal_projector`, `encoder`, `decoder`,
`default`) stand for what these parts are called in checkpoints; any other name of a module is the
beginning of its tensors' names.
"""

from __future__ import annotations

from merge_ops.checkpoints.names.model_parts import AUDIO, PROJECTOR, VISION


def in_module(module: str, tensor: str) -> bool:
    """Return whether a tensor belongs to a module, by their names."""
    parts = frozenset(tensor.split("."))
    projector = bool(parts & PROJECTOR)
    vision = bool(parts & VISION) and not projector
    audio = bool(parts & AUDIO)
    known = {
        "default": True,
        "text_decoder": not (projector or vision or audio),
        "language_model": not (projector or vision or audio),
        "vision_tower": vision,
        "vision_model": vision,
        "multi_modal_projector": projector,
        "audio_tower": audio,
        "encoder": "encoder" in parts,
        "decoder": "decoder" in parts,
        "shared": not parts & {"encoder", "decoder"},
    }
    if module in known:
        return known[module]
    return tensor == module or tensor.startswith(module.rstrip(".") + ".")
