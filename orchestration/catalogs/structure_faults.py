"""What is wrong with a step of another structure in a catalog: windows, mixtures, deeper models, ….

Such a step takes no expert set. It names models of the catalog, of any base, or results of other
documents, and its result is a checkpoint as any other. What a kind needs beyond that is a row here;
kinds that are not named need nothing more.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from merge_ops.errors import Fault, did_you_mean
from merge_ops.recipes import Recipe, Steps
from orchestration.catalogs.catalog import Catalog


def structure_faults(
    catalog: Catalog, steps: Steps, document: Recipe, place: str
) -> Iterator[Fault]:
    """Yield what is wrong between a step of another structure and the catalog; nothing of merges.

    `place` is where messages say that the document is.
    """
    kind = document.structure
    if kind is None:
        return
    made = [each.name for each in steps.earlier]
    known = (*catalog.models, *made)
    for name in document.referenced_models:
        if name not in known:
            hint = did_you_mean(name, known)
            problem = f"is neither a model of the catalog{' nor a document' if made else ''}."
            if "+" in name:
                problem = "is a model with an adapter: list that in models.yaml, and name it."
            yield Fault(f"{place}: model '{name}'", f"{problem}{hint}")
    yield from _adapter_faults(catalog, steps, document, place)
    more = _OF_KINDS.get(kind)
    if more is not None:
        yield from more(catalog, document, place)


def _adapter_faults(
    catalog: Catalog, steps: Steps, document: Recipe, place: str
) -> Iterator[Fault]:
    """Adapters are opened over the base of the file, which has one."""
    named = [catalog.models[n] for n in document.referenced_models if n in catalog.models]
    base = catalog.base_of(steps.result)
    for model in named:
        if model.kind == "lora" and model.base != base:
            problem = f"is a LoRA adapter on '{model.base}', and this file's base is '{base}': name"
            yield Fault(
                f"{place}: model '{model.name}'", f"{problem} one base's adapters in a file"
            )


def _window_faults(catalog: Catalog, document: Recipe, place: str) -> Iterator[Fault]:
    """A window names a run of models.yaml."""
    window, where = document.window, f"{place}: window.run"
    assert window is not None  # of its kind
    known = ", ".join(catalog.runs) or "none"
    if not isinstance(window.run, str):
        problem = "lists references; a catalog's windows name a run of models.yaml (`runs:`), whose"
        yield Fault(where, f"{problem} steps are pulled and watched. Known: {known}")
    elif window.run not in catalog.runs:
        hint = did_you_mean(window.run, catalog.runs)
        problem = f"is '{window.run}', which is no run of models.yaml (`runs: [{{name, steps}}]`)."
        yield Fault(where, f"{problem}{hint} Known: {known}")


def _symmetry_faults(catalog: Catalog, document: Recipe, place: str) -> Iterator[Fault]:
    """A key is a secret of its owner: a file of the machine that protects, and of no catalog."""
    assert document.symmetry is not None  # of its kind
    if document.symmetry.key is None:
        return
    key, where = Path(document.symmetry.key), f"{place}: protect.key"
    if not key.is_absolute():
        problem = f"is '{key}'; it must be the absolute path of a file on the machine that makes"
        yield Fault(where, f"{problem} the step, for no catalog and no store keeps a key")
    elif Path(os.path.normpath(key)).is_relative_to(catalog.folder.absolute()):
        problem = f"is '{key}', in the catalog's folder, which everybody reads who has the catalog"
        yield Fault(where, f"{problem}: keep the key elsewhere")


def _vocabulary_faults(catalog: Catalog, document: Recipe, place: str) -> Iterator[Fault]:
    """Tokens come from a model or from the recipe: both are kept."""
    step = document.vocabulary
    assert step is not None  # of its kind
    if step.source is not None and step.model is None:
        problem = f"is the file '{step.source}', which no store keeps: list its tokens here, or"
        way = "name a model of the catalog that has them"
        yield Fault(f"{place}: vocabulary.{step.kind}", f"{problem} {way}")


def _fewer_faults(catalog: Catalog, document: Recipe, place: str) -> Iterator[Fault]:
    """Statistics are a file of one machine; those of texts are measured, and kept in the store."""
    assert document.fewer is not None  # of its kind
    if document.fewer.statistics is not None:
        problem = f"is '{document.fewer.statistics}', a file that no store keeps: write `texts:`"
        yield Fault(
            f"{place}: moe.statistics",
            f"{problem} with a file of calibration texts in the catalog, which it is measured on",
        )


_OF_KINDS: Mapping[str, Callable[[Catalog, Recipe, str], Iterator[Fault]]] = {
    "window": _window_faults,
    "symmetry": _symmetry_faults,
    "vocabulary": _vocabulary_faults,
    "fewer": _fewer_faults,
}
"""What kinds of steps need beyond models that are there."""
