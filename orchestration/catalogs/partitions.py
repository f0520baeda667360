"""Dagster's partitions and the mappings between them, from a catalog.

A static mapping cannot go from one dimension straight into a two-dimensional grid, so it takes two
hops: model → expert → expert set by static mappings, then expert set → (experts × coefficient),
which Dagster infers because the grid's `experts` dimension is the same definition. So each recipe
has merge plans of its own, with exactly its sets: what another recipe merges changes nothing in it.
Earlier steps of a recipe have the sets alone, and Dagster infers the last hop the same way; a step
that takes no experts has no partitions.
Ids are built from sorted names, so reordering the catalog re-merges nothing.
"""

from dataclasses import dataclass
from functools import cached_property

import dagster as dg

from assets.work import names
from merge_ops.recipes import Recipe, Steps
from orchestration.catalogs.catalog import Catalog
from orchestration.catalogs.partition_keys import KeyedOnce, Points

EXPERTS, COEFFICIENT = "experts", "coefficient"


@dataclass(frozen=True)
class Partitions:
    """Partitions definitions of a catalog; equal definitions are one object.

    `name` is what the catalog is called: partitions that come by and by belong to it alone.
    """

    catalog: Catalog
    name: str = ""

    @cached_property
    def models(self) -> dg.StaticPartitionsDefinition:
        """One partition for each model."""
        return KeyedOnce(self.catalog.models)

    @cached_property
    def experts(self) -> dg.StaticPartitionsDefinition:
        """One partition for each expert."""
        return KeyedOnce(self.catalog.experts)

    @cached_property
    def run_steps(self) -> dg.DynamicPartitionsDefinition:
        """One partition for each step of a training run that was found: `RUN@STEP`."""
        return dg.DynamicPartitionsDefinition(name=f"steps of the training runs of {self.name}")

    def sets_of(self, recipe: Recipe) -> dg.StaticPartitionsDefinition:
        """Define one partition for each expert set of one recipe."""
        return self._definition_of(self.catalog.sets_of(recipe))

    def grid_of(self, recipe: Recipe) -> dg.MultiPartitionsDefinition:
        """Define one partition for each expert set and coefficient."""
        sets, coefficients = self.sets_of(recipe), tuple(each.id for each in recipe.coefficients())
        if (sets, coefficients) not in self._grids:
            dimensions = {EXPERTS: sets, COEFFICIENT: KeyedOnce(coefficients)}
            self._grids[sets, coefficients] = dg.MultiPartitionsDefinition(dimensions)
        return self._grids[sets, coefficients]

    def points_of(self, recipe: Recipe) -> Points:
        """Name the points of a recipe's grid by partition key; none is made before it is asked."""
        coefficients = tuple(each.id for each in recipe.coefficients())
        return Points(self.catalog.sets_of(recipe), coefficients)

    @cached_property
    def model_to_expert(self) -> dg.StaticPartitionMapping:
        """An expert depends on itself and on its base model."""
        targets = {
            name: list(self.catalog.experts_of(name)) if model.base is None else [name]
            for name, model in self.catalog.models.items()
        }
        return dg.StaticPartitionMapping({name: to for name, to in targets.items() if to})

    @cached_property
    def model_to_scores(self) -> dg.StaticPartitionMapping | None:
        """A model's scores depend on it alone, an adapter's also on its base; None: all alone."""
        models = self.catalog.models
        adapters = [each for each in models.values() if each.kind == "lora"]
        if not adapters:
            return None
        return dg.StaticPartitionMapping(
            {name: [name, *(a.name for a in adapters if a.base == name)] for name in models}
        )

    def expert_to_sets(self, recipe: Recipe) -> dg.StaticPartitionMapping:
        """A recipe's set depends on its experts (and through them on their base model)."""
        sets = self.catalog.sets_of(recipe)
        if sets not in self._holders:
            holding: dict[str, list[str]] = {}
            for each in sets:
                for name in each.split("+"):
                    holding.setdefault(name, []).append(each)
            self._holders[sets] = dg.StaticPartitionMapping(holding)
        return self._holders[sets]

    def inputs_of(self, steps: Steps, step: Recipe) -> list[dg.AssetDep]:
        """List what one step of a recipe depends on: steps, merge plans, models that it names.

        Merge plans reach it through the steps where those take experts, so that it runs when they
        have run, and not before. A model that it names touches all its partitions.
        """
        used, result = steps.used_by(step), steps.result
        keys = [dg.AssetKey.from_user_string(names.step(result.name, each.name)) for each in used]
        if step.experts and not any(map(steps.takes_experts, used)):
            keys.append(dg.AssetKey.from_user_string(names.merge_plan(result.name)))
        base = self.catalog.base_opened(result)
        named = {name for name in step.referenced_models if name in self.catalog.models}
        # The base opens adapters; where there are expert sets it comes with their plans.
        named = named - {base} if steps.takes_experts(step) else named | ({base} - {""})
        deps = [dg.AssetDep(key) for key in keys]
        if named:
            mapping = dg.SpecificPartitionsPartitionMapping(sorted(named))
            deps.append(dg.AssetDep("model", partition_mapping=mapping))
        if step.window is not None:
            deps.append(self._window_of(steps, step))
        return deps

    def windows_of(self, steps: Steps, step: Recipe) -> dg.PartitionsDefinition:
        """Define the windows of one step: the result's grid, or the one window of an earlier step.

        That is a partition too: Dagster runs an asset in one go with an input of equal partitions,
        and what a window is made into must not run where the window stays what it is.
        """
        return self.grid_of(step) if step is steps.result else self._definition_of((step.name,))

    def _window_of(self, steps: Steps, step: Recipe) -> dg.AssetDep:
        made = steps.result.name
        if step is steps.result:
            key = names.window(names.merged_checkpoint(made))
            return dg.AssetDep(key.split("/"), partition_mapping=self.same_point())
        key, alone = names.window(names.step(made, step.name)), [step.name]
        mapping = dg.SpecificPartitionsPartitionMapping(alone)
        return dg.AssetDep(key.split("/"), partition_mapping=mapping)

    @staticmethod
    def same_point() -> dg.MultiPartitionMapping:
        """Map each point of a grid to the same point of an equal grid, by dimension.

        It says what the identity mapping says, but Dagster does not run assets that are joined by
        it in one run. Scores wait for the run that merges, and so for each partition's own check.
        """
        identity = dg.IdentityPartitionMapping()
        return dg.MultiPartitionMapping(
            {name: dg.DimensionPartitionMapping(name, identity) for name in (EXPERTS, COEFFICIENT)}
        )

    def _definition_of(self, sets: tuple[str, ...]) -> dg.StaticPartitionsDefinition:
        if sets not in self._definitions:
            self._definitions[sets] = KeyedOnce(sets)
        return self._definitions[sets]

    @cached_property
    def _definitions(self) -> dict[tuple[str, ...], dg.StaticPartitionsDefinition]:
        return {}

    @cached_property
    def _holders(self) -> dict[tuple[str, ...], dg.StaticPartitionMapping]:
        return {}

    @cached_property
    def _grids(self) -> dict[tuple[object, ...], dg.MultiPartitionsDefinition]:
        return {}
