"""Files that are no recipes: what each is, and what to do with it here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merge_ops.errors import Fault

MOE = (
    "is a mergekit-moe file without `experts`, a list of {source_model, positive_prompts}, of which"
    " a mixture is made"
)
STAGES = (
    "is a mergekit-multi file of stages, each in a file of its own. Write the stages as documents"
    " of one file, with `---` between them and a `name` in each; later ones name it as a model"
)
EVOLVE = (
    "is a mergekit-evolve file. Write a recipe with a `sweep` over its parameters, scored in a"
    " catalog; or merge the recipe that mergekit-evolve found (best_config.yaml)"
)
BAKLLAMA = "is a bakllama file; write its layers as `slices` with `merge_method: passthrough`"
CONFIG = "is the config.json of a model; name the model's folder in a recipe's `models`"
ADAPTER = (
    "is the adapter_config.json of an adapter; name base and adapter in a recipe: `model:"
    " base+adapter`"
)
FACTORY = (
    "is a LLaMA-Factory file. To merge its adapter into the model write a recipe:"
    " `merge_method: linear` and `models: [{model: base+adapter, parameters: {weight: 1}}]`"
)
CARD = (
    "is the head of a model card (README.md). A recipe stands further down in it, between ```yaml"
    " and ```; copy that into a file"
)
CATALOG = "is a catalog's models.yaml, which `ronghe refresh` reads; a recipe has a `merge_method`"
SUITE = "is a suite of a catalog, which `ronghe refresh` reads; a recipe has a `merge_method`"

_BY_KEY = {
    "gate_mode": MOE,
    "stages": STAGES,
    "genome": EVOLVE,
    "layer_slices": BAKLLAMA,
    "peft_type": ADAPTER,
    "architectures": CONFIG,
    "model_type": CONFIG,
    "model_name_or_path": FACTORY,
    "export_dir": FACTORY,
    "library_name": CARD,
    "pipeline_tag": CARD,
    "benchmarks": SUITE,
}


def foreign_file(document: Mapping[Any, Any]) -> Fault | None:
    """Return the fault of a document that is no recipe but a file of another kind, or None."""
    if "merge_method" in document:
        return None
    if isinstance(document.get("models"), dict):
        return Fault("", CATALOG)
    for key, told in _BY_KEY.items():
        if key in document:
            return Fault("", told)
    return None
