"""A checked catalog: what models, recipes and suites a team has, and how they hang together."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from assets.work.entries import UpstreamModel
from merge_ops.errors import FaultsError
from merge_ops.recipes import Recipe, Steps, set_id


class CatalogError(FaultsError):
    """A catalog with faults, all of them listed, each with its file."""


@dataclass(frozen=True)
class Catalog:
    """A checked catalog. `models` and `files` are in the order of their names.

    `files` are the recipes' files: each one recipe, or several of which later ones use earlier
    ones' results (merge_ops.recipes.steps says which of them are merged for each expert set).
    `declared_name` is what models.yaml calls the catalog, if it does (catalog_name.py).
    """

    folder: Path
    models: Mapping[str, UpstreamModel]
    files: Mapping[str, Steps]
    suites: Mapping[str, Path]
    declared_name: str | None = None

    @property
    def recipes(self) -> Mapping[str, Recipe]:
        """Each file is for one recipe: its only one, or its last."""
        return {name: steps.result for name, steps in self.files.items()}

    @property
    def bases(self) -> tuple[str, ...]:
        """Names of the models that have experts, sorted."""
        return tuple(sorted({model.base for model in self.models.values() if model.base}))

    @property
    def experts(self) -> tuple[str, ...]:
        """Names of the models that have a base."""
        return tuple(name for name, model in self.models.items() if model.base)

    def experts_of(self, base: str) -> tuple[str, ...]:
        """Return the names of the experts of one base model."""
        return tuple(name for name, model in self.models.items() if model.base == base)

    def base_of(self, recipe: Recipe) -> str:
        """Return the base model whose experts a file merges; of its recipes, give the result.

        It is the one that any of them names, itself or by an expert, or the catalog's only one.
        """
        steps = self.files[recipe.name]
        names = [*(each.base_model for each in steps.recipes), *steps.referenced_models]
        named = [self.models[name].base or name for name in names if name and name in self.models]
        return named[0] if named else self.bases[0]

    def sets_of(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the ids of the expert sets that a file is merged for, sorted."""
        takers = [each for each in self.files[recipe.name].recipes if each.experts]
        return self.sets_asked(takers[0], self.base_of(recipe)) if takers else ()

    def sets_asked(self, document: Recipe, base: str) -> tuple[str, ...]:
        """Return the ids of the expert sets that one document asks for, sorted."""
        return tuple(sorted(map(set_id, document.expert_sets(self.experts_of(base)))))

    @property
    def sets(self) -> tuple[str, ...]:
        """Ids of all expert sets of all recipes, sorted."""
        sets = {each for recipe in self.recipes.values() for each in self.sets_of(recipe)}
        return tuple(sorted(sets))

    def suite_of(self, recipe: Recipe) -> Path | None:
        """Return the suite file that a recipe is scored on."""
        return self.suites[recipe.suite] if recipe.suite else None
