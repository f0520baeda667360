"""What the names of a file's tensors say of it: an adapter and of which kind, or a model's weights.

The name of a file decides nothing: trainers save adapters as model.safetensors and models as
adapter_model.safetensors, and put a config.json beside both.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

PEFT_PREFIX = "base_model.model."
# One row a kind, the first that fits a tensor's name is its kind. Ends of names alone are not
# enough: RWKV 7 has `w_lora.lora.0.weight`, which is a part of the model.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("kohya LoRA", r"^(lora|lycoris)_(unet|te\d?|transformer|prior|t5xxl|\w+?)_.+\."
                       r"(lora_(up|down|mid)\.weight|alpha|dora_scale)$"),
        ("LyCORIS adapter", r"^(lora|lycoris)_\w+\.(hada_w\d|hada_t\d|lokr_|oft_|boft_|diff\b"
                            r"|diff_b|a\d\.weight|b\d\.weight|on_input|w_norm|b_norm|scalar)"),
        ("AdaLoRA adapter", r"(^|\.)lora_E(\.|$)"),
        ("DoRA adapter", r"(^|\.)lora_magnitude_vector(\.|$)|\.dora_scale$"),
        ("LoHa adapter", r"(^|\.)hada_[wt]\d"),
        ("LoKr adapter", r"(^|\.)lokr_[wt]\d"),
        ("OFT adapter", r"(^|\.)(oft_(r|s|blocks|R)|boft_[RPs])(\.|$)"),
        ("IA3 adapter", r"(^|\.)ia3_l(\.|$)"),
        ("VeRA adapter", r"(^|\.)vera_(lambda|A|B)"),
        ("RandLoRA adapter", r"(^|\.)randlora_(lambda|gamma|A|B)"),
        ("VB-LoRA adapter", r"(^|\.)vblora_"),
        ("FourierFT adapter", r"(^|\.)fourierft_spectrum"),
        ("HRA adapter", r"(^|\.)hra_u(\.|$)"),
        ("MiSS adapter", r"(^|\.)(miss|bone)_block(\.|$)"),
        ("prompt or prefix adapter", r"^prompt_embeddings$|(^|\.)prefix_encoder\.embedding\."),
        ("diffusers LoRA", r"^(unet|transformer(_2)?(?!\.(?:h|encoder|layers)\.)"
                           r"|text_encoder(_\d)?|prior)\..*"
                           r"(lora_[AB]\.|lora_(up|down)\.|lora\.(up|down)\.|_lora\.(up|down)\.)"),
        ("diffusers LoRA", r"\.processor\.\w+_lora\.(up|down)\.weight$"
                           r"|\.lora_linear_layer\.(up|down)\.weight$"),
        ("ComfyUI LoRA", r"^diffusion_model\..*(lora_[AB]\.|lora_(up|down)\.|\.alpha$)"),
        ("LoRA", r"(^|\.)lora_(embedding_)?[AB](\.|$)"),
        ("LoRA", r"\.lora_(up|down)\.weight$"),
        ("MLX LoRA", r"\.lora_[ab]$"),
        ("NeMo LoRA", r"\.lora_\w+_adapter\.linear_(in|out)\.weight$"),
    )
)  # fmt: skip
_HEAVIER = ("DoRA adapter", "AdaLoRA adapter")
"""Kinds that show in a few tensors of a LoRA only, and change what all of them mean."""
_MODULE = re.compile(
    r"(?P<module>.+?)\.(?:lora_(?:embedding_)?[ABEab]|lora_(?:up|down)|lora_magnitude_vector|"
    r"hada_[wt]\d|lokr_[wt]\d|ia3_l|vera_lambda|oft_[rsR]|boft_[RPs])(?:[._]|$)"
)
_SIGNS = re.compile(
    r"lora|lycoris|hada_|lokr_|oft_|ia3_l|vera_|fourierft_|hra_u|miss_block|bone_block|dora_scale"
    r"|prompt_embeddings|prefix_encoder"
)
_DIFFUSION = ("model.diffusion_model.", "first_stage_model.", "conditioner.", "cond_stage_model.")


OF_IMAGES = ("kohya LoRA", "diffusers LoRA")
"""Adapters of image models, which are merged into their base without a config of their own."""
OF_OTHERS: Mapping[str, str] = {
    **dict.fromkeys(OF_IMAGES, "name it with its base, as 'base+adapter'"),
    "LyCORIS adapter": "merge it into its base with LyCORIS' tools/merge.py, and name what"
    " comes out",
    "ComfyUI LoRA": "save the model with it (node `ModelSave`) and name that file",
    "MLX LoRA": "merge it with `mlx_lm.fuse`, and name the model that comes out",
    "NeMo LoRA": "convert it with NeMo to the form of Hugging Face, and name that",
    "prompt or prefix adapter": "it changes inputs and no weights, so there is nothing to merge",
}
"""Adapters of other programs than PEFT, and those without weights; each with the way out."""


def kind_of_tensor(name: str) -> str | None:
    """Return the kind of adapter that has a tensor of this name, or None for any other tensor."""
    if not _SIGNS.search(name):
        return None
    return next((kind for kind, pattern in _KINDS if pattern.search(name)), None)


@dataclass(frozen=True)
class AdapterNames:
    """What names of tensors say of an adapter: its kind, or None, and what lies beside it.

    `parts` are the tensors of adapters. `unmerged` are modules that have both an adapter's factors
    and the weight that these change.
    """

    kind: str | None
    parts: tuple[str, ...] = ()
    unmerged: tuple[str, ...] = ()

    @property
    def inside_a_model(self) -> bool:
        """Return whether these are parts of a model, or of one whose adapter was not merged in."""
        return self.kind is None and bool(self.parts)


def adapter_names(names: Collection[str]) -> AdapterNames:
    """Return what a file's names of tensors say of an adapter.

    PEFT's LoRA is of the kind `LoRA`, whatever prefix its names have. Its modules may have tensors
    that are saved whole beside the factors; a file in which most tensors are a model's own has no
    kind, and is a model with parts of an adapter.
    """
    if not _SIGNS.search("\n".join(names)):  # one search is faster than one for each name
        return AdapterNames(None)
    kinds = {name: kind for name in names if (kind := kind_of_tensor(name)) is not None}
    if not kinds:
        return AdapterNames(None)
    counts = Counter(kinds.values())
    kind = next((each for each in _HEAVIER if each in counts), counts.most_common(1)[0][0])
    modules = {found["module"] for name in kinds if (found := _MODULE.match(name))}
    both = sorted(
        module
        for module in modules
        if f"{module}.base_layer.weight" in names or f"{module}.weight" in names
    )
    own = [name for name in names if name not in kinds and not name.startswith(PEFT_PREFIX)]
    if 2 * len(both) > len(modules) or len(own) > len(kinds):
        return AdapterNames(None, tuple(kinds), tuple(both))
    return AdapterNames(kind, tuple(kinds), tuple(both))


def is_diffusion_checkpoint(names: Iterable[str]) -> bool:
    """Return whether these are names of a whole diffusion pipeline in one file (SD, SDXL, Flux)."""
    return any(name.startswith(_DIFFUSION) for name in names)
