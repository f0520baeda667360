"""Parameters that methods on trimmed or dropped task vectors have in common."""

from __future__ import annotations

import dataclasses
from typing import Any

from merge_ops.measures.measure import ModelWide
from merge_ops.measures.trimming import L1_NORM, NONE
from merge_ops.methods.parameters import Parameter, shared

PER_TENSOR, GLOBAL = "per_tensor", "global"
INVERSE_DENSITY = "inverse_density"


def rescale_after_trimming() -> Any:
    """The parameter `rescale` of methods that trim."""
    return shared(
        "rescale",
        str,
        NONE,
        "l1_norm, or true, scales what is kept until Σ|δ| is as before",
        choices=(L1_NORM, NONE),
        aliases={True: L1_NORM, False: NONE},
    )


def rescale_after_dropping() -> Any:
    """The parameter `rescale` of methods that drop at random."""
    return shared(
        "rescale",
        str,
        L1_NORM,
        "how kept entries are scaled up; true means l1_norm as in mergekit",
        choices=(L1_NORM, INVERSE_DENSITY, NONE),
        aliases={True: L1_NORM, False: NONE},
    )


def trim_scope() -> Any:
    """The parameter `trim` of methods that trim."""
    meaning = "whether the largest entries are those of each tensor or of the whole model"
    spec = Parameter("trim", str, meaning, PER_TENSOR, choices=(PER_TENSOR, GLOBAL))
    return dataclasses.field(default=PER_TENSOR, metadata={"parameter": spec})


def _is_global(parameters: Any) -> bool:
    return parameters.trim == GLOBAL


def trimmed_globally(*same: str) -> ModelWide:
    """With `trim: global` the whole model is measured; `same` hold for all its tensors then."""
    return ModelWide("trim: global", _is_global, ("trim", *same))
