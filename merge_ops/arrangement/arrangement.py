"""Which tensors of which models make which tensor of the output, for each form of a recipe.

`models` merges equal names. `slices` stacks ranges of layers: layer numbers are counted anew, what
lies before the layers comes from the first slice and what lies behind them from the last. `modules`
does either for a part of the tensors and copies the rest. Everything is told from tensor names; how
many layers count, and what describes a new stack, from config.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from merge_ops.arrangement.completeness import module_faults, outside_modules
from merge_ops.arrangement.gradients import check_gradients
from merge_ops.arrangement.groups import Arrangement, Group, Place, make_group
from merge_ops.arrangement.modules import in_module
from merge_ops.arrangement.slices import stack_slices
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.layer_counts import counted_layers
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.depth import depths
from merge_ops.checkpoints.names.ties import excluded, find_source, own_heads
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.recipe import ModelEntry, Recipe, Section


def arrange(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Arrangement:
    """Resolve `models`, `slices` or `modules` of a recipe and return the arrangement.

    Raises RecipeError where they cannot be met.
    """
    donor = donor_of(recipe, checkpoints)
    if not recipe.modules:
        whole = _section(recipe, checkpoints, donor, recipe.section, lambda tensor: True)
        check_gradients(recipe, {"": whole.places})
        return whole
    found: dict[str, Arrangement] = {}
    for name, section in recipe.modules.items():
        # What two modules could hold belongs to the first.
        holds = partial(_in_first_module, name, tuple(found))
        if not any(map(holds, donor.tensors)):
            problem = f"matches no tensor of {donor.name}; a module is named by mergekit's names"
            problem += " (text_decoder, vision_tower, …) or by the start of its tensors' names"
            raise RecipeError(recipe.subject, [Fault(f"modules.{name}", problem)])
        found[name] = _section(recipe, checkpoints, donor, section, holds)
    check_gradients(recipe, {name: each.places for name, each in found.items()})

    def held(tensor: str) -> bool:
        return any(in_module(name, tensor) for name in recipe.modules)

    parts = found.values()
    groups = tuple(group for each in parts for group in each.groups)
    models = [member for group in groups for member in group.members]
    skipped = {name: why for each in parts for name, why in each.excluded.items()}
    skipped |= {name: why for name, why in excluded(donor).items() if not held(name)}
    others, cautions = outside_modules(donor, models, held)
    left = [name for name in donor.tensors if not held(name) and name not in skipped]
    places = [place for each in parts for place in each.places]
    places += [Place(name, 0.0, None, name) for name in left]
    return Arrangement(
        tuple(sorted(places, key=lambda place: natural_key(place.name))),
        groups,
        tuple(stack for each in parts for stack in each.stacks),
        {**skipped, **others},
        (*(caution for each in parts for caution in each.cautions), *cautions),
        tuple(fault for each in parts for fault in each.faults),
    )


def donor_of(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Checkpoint:
    """Return the model that gives config and tokenizer.

    It is the base, or else the first model that the recipe names.
    """
    return checkpoints[recipe.base_model or recipe.merged_models[0]]


def _section(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    donor: Checkpoint,
    section: Section,
    holds: Callable[[str], bool],
) -> Arrangement:
    """One section of the recipe; `holds` says which tensors are its."""
    if section.slices:
        return stack_slices(recipe, checkpoints, section, holds, donor)
    group = _group_of_models(recipe, checkpoints, section)
    skipped: dict[str, str] = {}
    for checkpoint in (donor, *group.members):
        skipped |= {name: why for name, why in excluded(checkpoint).items() if holds(name)}
    # A head that any model keeps for itself is written: where it is tied, the embedding stands in.
    heads = {name for name in own_heads(group.members) if holds(name)}
    mine = {name for name in donor.tensors if holds(name)}
    # What another model stores as a copy may be the only one that the donor has.
    own = heads | (mine - excluded(donor).keys())
    skipped = {name: why for name, why in skipped.items() if name not in own}
    faults: tuple[Fault, ...] = ()
    if recipe.modules:
        faults = tuple(module_faults(donor, group.members, holds))
        mine = {name for name in mine if all(find_source(each, name) for each in group.members)}
    kept = sorted((mine | heads) - skipped.keys(), key=natural_key)
    at = depths(kept, counted_layers(donor.config, kept))
    places = tuple(Place(each, at[each], group, each, (each,) * len(group.inputs)) for each in kept)
    return Arrangement(places, (group,), (), skipped, (), faults)


def _in_first_module(module: str, earlier: tuple[str, ...], tensor: str) -> bool:
    return in_module(module, tensor) and not any(in_module(each, tensor) for each in earlier)


def _group_of_models(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], section: Section
) -> Group:
    """An unlisted base joins last (mergekit's rule)."""
    entries = list(section.models)
    if recipe.base_model and recipe.base_model not in [each.model for each in entries]:
        entries.append(ModelEntry(recipe.base_model))
    where = f"{section.where}models"
    return make_group(recipe, checkpoints, entries, recipe.base_model, where, (section.parameters,))
