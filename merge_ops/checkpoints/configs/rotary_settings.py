"""The rotary embedding that a config asks for, whichever way it is written.

rope_theta, rope_scaling                     up to transformers 4
rope_parameters                              transformers 5, for all layers
rope_parameters: {full_attention: …, …}      transformers 5, by the type of layer
rope_local_base_freq beside rope_theta       Gemma 3 up to transformers 4, ModernBERT likewise
rotary_emb_base, rope_base, rotary_base      GPT-NeoX, Qwen 1 and others
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.checkpoints.configs.config_defaults import ROTARY_SHARE, THETA, class_default

FULL, LOCAL = "full_attention", "sliding_attention"
_THETA = ("rope_theta", "global_rope_theta", "rotary_emb_base", "rope_base", "rotary_base")
_LOCAL_THETA = ("rope_local_base_freq", "local_rope_theta")
_SHARE = ("partial_rotary_factor", "rotary_pct")
# Loading fills these in where a file leaves them out.
_FILLED_IN = {"beta_fast": 32, "beta_slow": 1, "low_freq_factor": 1, "truncate": True}
_TRAINED = "original_max_position_embeddings"
_USUAL_THETA = LOCAL_THETA = 10000.0


@dataclass(frozen=True)
class Rotary:
    """A rotary embedding has a base and may be scaled; it turns a share of each head.

    `share` is None where neither the config nor its class tells it. `scaling` is empty where there
    is none. `stated` is false where the config says nothing and all are defaults.
    """

    theta: Any
    share: Any
    scaling: Mapping[str, Any]
    stated: bool


def rotary_settings(config: Mapping[str, Any]) -> dict[str, Rotary]:
    """Return the rotary embedding of each type of layer; that of all layers is called "".

    `config` is one level of a config.json.
    """
    stated = config.get("rope_parameters") or config.get("rope_scaling")
    written: Mapping[str, Any] = cast(Mapping[str, Any], stated) if isinstance(stated, dict) else {}
    by_layer = {
        kind: cast(Mapping[str, Any], part)
        for kind, part in written.items()
        if isinstance(part, dict)
    }
    if by_layer and len(by_layer) == len(written):
        return {kind: _rotary(config, part) for kind, part in by_layer.items()}
    everywhere = _rotary(config, written)
    local = _first(config, _LOCAL_THETA)
    if local is not None:
        return {FULL: everywhere, LOCAL: Rotary(local, everywhere.share, {}, True)}
    return {"": everywhere}


def _rotary(config: Mapping[str, Any], written: Mapping[str, Any]) -> Rotary:
    theta = written.get("rope_theta")
    theta = _first(config, _THETA) if theta is None else theta
    share = written.get("partial_rotary_factor")
    share = _first(config, _SHARE) if share is None else share
    scaling = {
        ("rope_type" if key == "type" else key): value
        for key, value in written.items()
        if key not in ("rope_theta", "partial_rotary_factor") and value is not None
        if _FILLED_IN.get(key) != value
    }
    if scaling.get("rope_type") in ("default", "mrope"):  # mrope is told by its sections
        del scaling["rope_type"]
    if scaling.get("rope_type") == "su":  # the older name
        scaling["rope_type"] = "longrope"
    if scaling:  # of Phi 3 the length stands beside it
        trained = scaling.pop(_TRAINED, config.get(_TRAINED))
        if trained is not None and trained != config.get("max_position_embeddings"):
            scaling[_TRAINED] = trained
    return Rotary(
        class_default(config, THETA) or _USUAL_THETA if theta is None else theta,
        class_default(config, ROTARY_SHARE) if share is None else share,
        scaling,
        bool(written) or any(config.get(name) is not None for name in (*_THETA, *_SHARE)),
    )


def _first(config: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)
