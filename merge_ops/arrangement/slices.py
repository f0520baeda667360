"""`slices`: ranges of layers of several models, merged and stacked to a depth of their own.

Parts for multi-token prediction, which some models have behind the layers that config.json counts,
are merged and stay behind the new stack where all models of the last slice have them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from merge_ops.arrangement.completeness import gap_caution, repeat_caution
from merge_ops.arrangement.groups import Arrangement, Place
from merge_ops.arrangement.one_slice import Slice
from merge_ops.arrangement.slice_leftovers import further_not_written, outside_not_written
from merge_ops.arrangement.stack_fit import outside_faults, stack_faults
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.restacking import NewStack, restack
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.ties import excluded, own_heads
from merge_ops.errors import Caution
from merge_ops.recipes.recipe import Recipe, Section


def stack_slices(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    section: Section,
    holds: Callable[[str], bool],
    donor: Checkpoint,
) -> Arrangement:
    """Stack the slices of a section, each a group of its own, and return the arrangement.

    Only tensors take part for which `holds` is true. `donor` gives the config that describes the
    stack. Raises RecipeError where a slice cannot be met.
    """
    slices = [
        Slice(recipe, checkpoints, section, number, holds) for number in range(len(section.slices))
    ]
    first, last = slices[0], slices[-1]
    for other in slices[1:]:
        other.check_stack(first.stack)
    # A head that any model keeps for itself is written; a tied last slice gives its embedding.
    members = [member for stacked in slices for member in stacked.group.members]
    heads = own_heads([donor, *members])
    outside = [*first.outside(True, heads), *last.outside(False, heads)]
    layers: list[Place] = []
    origins: list[tuple[Checkpoint, int]] = []
    for stacked in slices:
        layers += stacked.layers(first=len(origins))
        origins += stacked.origins()
    further = last.further(first=len(origins))
    stack = NewStack(first.stack, tuple(origins), _count(further, len(origins)))
    places = sorted((*outside, *layers, *further), key=lambda place: natural_key(place.name))
    written = {place.name for place in places}
    skipped: dict[str, str] = {}
    for stacked in slices:
        for member in stacked.group.members:
            skipped.update(excluded(member))
    lost = outside_not_written(donor, slices, written)
    unpredicted = further_not_written(slices) if not further else None
    skipped |= lost.excluded
    skipped |= unpredicted.excluded if unpredicted else {}
    reference = donor if first.stack in donor_stacks(donor, holds) else first.group.members[0]
    faults = (
        *stack_faults(stack.name, reference, origins),
        *outside_faults(reference, outside, recipe.tokenizer is not None),
        *lost.faults,
    )
    cautions = (
        *lost.cautions,
        *(unpredicted.cautions if unpredicted else ()),
        *_layer_cautions(recipe, slices, len(origins)),
        *restack(donor.config, stack)[1],
    )
    return Arrangement(
        tuple(places),
        tuple(stacked.group for stacked in slices),
        (stack,),
        {name: why for name, why in skipped.items() if name not in written},
        cautions,
        faults,
    )


def donor_stacks(donor: Checkpoint, holds: Callable[[str], bool]) -> set[str]:
    """Return the stacks of the model that gives the config."""
    return {place[0] for name in donor.tensors if holds(name) and (place := layer_of(name))}


def _count(further: list[Place], layers: int) -> int:
    """How many layers for multi-token prediction are written; those of other names count once."""
    behind = {
        place[1]
        for each in further
        if (place := layer_of(each.name)) is not None and place[1] >= layers
    }
    return len(behind) or bool(further)


def _layer_cautions(recipe: Recipe, slices: list[Slice], made: int) -> list[Caution]:
    ranges = [each for stacked in slices for each in stacked.ranges()]
    numbers = {model: found for stacked in slices for model, found in stacked.numbers.items()}
    found = [gap_caution(ranges, numbers, made)]
    if recipe.method.name != "passthrough":
        found.append(repeat_caution([each for stacked in slices for each in stacked.sources()]))
    return [caution for caution in found if caution is not None]
