"""The models that a recipe merges, as its steps make them of those that were opened.

Some recipes do more than merge: they align, convert, give another vocabulary, build a mixture of
experts, leave moe_experts out, put layers in. Each step takes opened checkpoints and gives others,
whose tensors are derived as they are read; nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from merge_ops.arrangement.arrangement import donor_of
from merge_ops.arrangement.expansion import with_expansion
from merge_ops.arrangement.mixtures.layouts import in_one_layout
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.name_alignment import named_alike
from merge_ops.errors import Caution
from merge_ops.plans.agreement.compatibility import check_weights
from merge_ops.plans.derived.converted_models import with_conversion
from merge_ops.plans.derived.fewer_models import with_fewer
from merge_ops.plans.derived.symmetric_models import with_symmetry
from merge_ops.plans.one_model import with_one_name_each
from merge_ops.recipes.recipe import Recipe
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer

if TYPE_CHECKING:  # few recipes make a mixture, and starting is counted
    from merge_ops.arrangement.mixtures.aligned_experts import ExpertAligner
    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.plans.derived.moe_models import Gates


@dataclass(frozen=True)
class PreparedModels:
    """The models of a merge, after all that comes before it.

    `recipe` may have other layers than the one given. `donor` gives the result its config and side
    files; `others` are merged with it. `as_given` says that those are the checkpoints that were
    opened. `tokenizer` is the result's where a step made one. `beside` are models that are read and
    not merged, `aligner` what permutes the neurons of some.
    """

    recipe: Recipe
    checkpoints: Mapping[str, Checkpoint]
    donor: Checkpoint
    others: Sequence[Checkpoint]
    as_given: bool
    cautions: Sequence[Caution] = ()
    tokenizer: OutputTokenizer | None = None
    beside: tuple[Checkpoint, ...] = ()
    aligner: ExpertAligner | None = None


def prepared_models(
    recipe: Recipe,
    checkpoints: Mapping[str, Checkpoint],
    gates: Gates | None,
    statistics: MoeStatistics | None,
) -> PreparedModels:
    """Take the steps of a recipe that make the models which it merges.

    `checkpoints` are by the names that the recipe uses; for `gates` and `statistics` see
    planning.plan_merge. Raises CompatibilityError where a model is not what a step needs.
    """
    recipe = with_one_name_each(recipe, checkpoints)
    checkpoints, aligner = with_symmetry(recipe, checkpoints)
    checkpoints = with_conversion(recipe, checkpoints)
    tokenizer: OutputTokenizer | None = None
    beside: tuple[Checkpoint, ...] = ()
    cautions: list[Caution] = []
    if recipe.vocabulary is not None:
        from merge_ops.vocabularies.new_vocabulary import new_vocabulary

        new = new_vocabulary(recipe, recipe.vocabulary, checkpoints)
        checkpoints = {**checkpoints, recipe.models[0].model: new.model}
        tokenizer, beside = new.tokenizer, new.beside
    if recipe.moe is not None:
        from merge_ops.plans.derived.moe_models import moe_models

        mixture = moe_models(recipe, recipe.moe, checkpoints, gates)
        checkpoints, beside = {recipe.moe.base_model: mixture.model}, mixture.beside
        cautions += mixture.cautions
    checkpoints, fewer = with_fewer(recipe, checkpoints, statistics, gates)
    recipe, expanded = with_expansion(recipe, checkpoints)
    opened = [donor_of(recipe, checkpoints), *(checkpoints[each] for each in recipe.merged_models)]
    check_weights(opened)
    checkpoints, relaid = in_one_layout(checkpoints, recipe.merged_models)
    donor = donor_of(recipe, checkpoints)
    checkpoints = dict(zip(checkpoints, named_alike(donor, checkpoints.values()), strict=True))
    merged = [checkpoints[name] for name in recipe.merged_models]
    others = [each for each in merged if each is not donor]
    as_given = all(any(each is one for one in opened) for each in others)
    cautions += [*fewer, *expanded, *relaid]
    return PreparedModels(
        recipe, checkpoints, donor, others, as_given, cautions, tokenizer, beside, aligner
    )
