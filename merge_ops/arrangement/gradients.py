"""Gradients that would have no effect: every tensor would take their first value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from merge_ops.arrangement.groups import Place
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.errors import Fault, RecipeError
from merge_ops.methods.parameters import is_gradient
from merge_ops.recipes.recipe import Parameters, Recipe, Section


def check_gradients(recipe: Recipe, sections: Mapping[str, Sequence[Place]]) -> None:
    """Raise RecipeError where gradients are given for tensors of which none lies in a layer.

    `sections` holds the places of each module by its name, or of the whole recipe under "".
    """
    in_layers = {name: any(map(_in_layer, places)) for name, places in sections.items()}
    faults: list[Fault] = []
    for name, places in sections.items():
        if not in_layers[name]:
            section = recipe.modules[name] if name else recipe.section
            faults += [_fault(where, places) for where in _gradients_of(recipe, section)]
    if not any(in_layers.values()):
        every = [place for places in sections.values() for place in places]
        faults += [_fault(where, every) for where in _shared_gradients(recipe)]
    if faults:
        raise RecipeError(recipe.subject, faults)


def _in_layer(place: Place) -> bool:
    return place.group is not None and layer_of(place.name) is not None


def _fault(where: str, places: Sequence[Place]) -> Fault:
    names = [place.name for place in places if place.group is not None]
    example = f" (such as '{names[0]}')" if names else ""
    return Fault(
        where,
        f"is a gradient over layers, but the tensors' names{example} show no stack of layers:"
        " every tensor would take its first value, and the gradient would have no effect. Give one"
        " value, or a value for each part by filters: [{filter: part of a name, value: 0.2},"
        " {value: 0.8}]",
    )


def _shared_gradients(recipe: Recipe) -> Iterator[str]:
    yield from _in_table(recipe, "parameters", recipe.parameters)
    for name, values in recipe.sweep.items():
        spec = recipe.method.parameter_specs.get(name)
        if spec and not spec.is_list and any(map(is_gradient, values)):
            yield f"sweep.{name}"


def _gradients_of(recipe: Recipe, section: Section) -> Iterator[str]:
    yield from _in_table(recipe, f"{section.where}parameters", section.parameters)
    for number, entry in enumerate(section.models):
        where = f"{section.where}models[{number}].parameters"
        yield from _in_table(recipe, where, entry.parameters)


def _in_table(recipe: Recipe, where: str, table: Parameters) -> Iterator[str]:
    specs = recipe.method.parameter_specs
    for name, setting in table.items():
        if name in specs and not specs[name].is_list and is_gradient(setting):
            yield f"{where}.{name}"
