"""A checked catalog: what models, recipes and suites a team has, and how they hang together."""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from assets.work.upstream.entries import TrainingRun, UpstreamModel
from merge_ops.errors import Fault, FaultsError
from merge_ops.recipes import Recipe, Steps


class CatalogError(FaultsError):
    """A catalog with faults, all of them listed, each with its file."""


@dataclass(frozen=True)
class BrokenPart:
    """A broken part is one recipe, suite or model that cannot be used, with all its faults.

    `name` is the recipe's, suite's or model's, or the file's where that says nothing of them.
    `told_early` is False for what may be only not there yet: items that are still to be made.
    """

    kind: Literal["recipe", "suite", "model", "file"]
    name: str
    faults: tuple[Fault, ...]
    told_early: bool = True

    @property
    def id(self) -> str:
        """What the part is called: `recipe ties`."""
        return f"{self.kind} {self.name}"

    def __str__(self) -> str:
        return str(CatalogError(self.id, self.faults))


@dataclass(frozen=True)
class SuiteWords:
    """What a suite says of itself for people: a description, and titles of its benchmarks."""

    description: str | None = None
    titles: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Catalog:
    """A checked catalog. `models` and `files` are in the order of their names.

    `files` are the recipes' files: each one recipe, or several of which later ones use earlier
    ones' results (merge_ops.recipes.steps says which of them are merged for each expert set).
    What follows from them is worked out once: recipes that ask for the same expert sets share one
    tuple of ids, and there may be half a million.
    `broken` are the parts that cannot be used, by their ids. A broken recipe is in `broken` alone.
    A broken model is in `models` too, with its faults, so that the expert sets that hold it stay
    what they are. A broken suite is in `suites` too, without a digest in `suite_digests`. Of
    `suites_of_tasks` lm-eval must have the tasks, which reading the catalog does not tell.
    `suite_benchmarks` names the benchmarks of each sound suite, `suite_words` what they are called
    for people.
    `imported` are files of scores from elsewhere, by name, each with its digest.
    `declared_name` is what models.yaml calls the catalog, if it does (catalog_name.py).
    `runs` are the training runs whose steps are models.
    """

    folder: Path
    models: Mapping[str, UpstreamModel]
    files: Mapping[str, Steps]
    suites: Mapping[str, Path]
    declared_name: str | None = None
    broken: Mapping[str, BrokenPart] = field(default_factory=dict[str, BrokenPart])
    suite_digests: Mapping[str, str] = field(default_factory=dict[str, str])
    suites_of_tasks: Collection[str] = ()
    suite_benchmarks: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict[str, tuple[str, ...]]
    )
    imported: Mapping[str, tuple[Path, str]] = field(default_factory=dict[str, tuple[Path, str]])
    suite_words: Mapping[str, SuiteWords] = field(default_factory=dict[str, "SuiteWords"])
    runs: Mapping[str, TrainingRun] = field(default_factory=dict[str, TrainingRun])

    @cached_property
    def recipes(self) -> Mapping[str, Recipe]:
        """Each file is for one recipe: its only one, or its last."""
        return {name: steps.result for name, steps in self.files.items()}

    @cached_property
    def licences(self) -> Mapping[str, str | None]:
        """What the catalog says of the licence of each model, and of each training run."""
        return {name: each.licence for name, each in (*self.models.items(), *self.runs.items())}

    @cached_property
    def bases(self) -> tuple[str, ...]:
        """Names of the models that have experts, sorted."""
        return tuple(sorted({model.base for model in self.models.values() if model.base}))

    @cached_property
    def experts(self) -> tuple[str, ...]:
        """Names of the models that have a base."""
        return tuple(name for name, model in self.models.items() if model.base)

    def experts_of(self, base: str) -> tuple[str, ...]:
        """Return the names of the experts of one base model."""
        return self._experts_by_base.get(base, ())

    def base_of(self, recipe: Recipe) -> str:
        """Return the base model whose experts a file merges; of its recipes, give the result.

        It is the one that any of them names, itself or by an expert, or the catalog's only one; ""
        where the catalog has none.
        """
        steps = self.files[recipe.name]
        names = [*(each.base_model for each in steps.recipes), *steps.referenced_models]
        named = [self.models[name].base or name for name in names if name and name in self.models]
        return named[0] if named else next(iter(self.bases), "")

    def base_opened(self, recipe: Recipe) -> str:
        """Return the base that a file needs beside what it names: of experts, and of adapters.

        "" where it needs none: steps of another structure open what they name and no more.
        """
        steps = self.files[recipe.name]
        named = [self.models[name] for name in steps.referenced_models if name in self.models]
        adapters = any(model.kind == "lora" for model in named)
        structured = any(each.structure for each in steps.recipes)
        if structured and not adapters and not self.takes_experts(recipe):
            return ""
        return self.base_of(recipe)

    def sets_of(self, recipe: Recipe) -> tuple[str, ...]:
        """Return the ids of the expert sets that a file is merged for, sorted.

        A file without `experts`, of windows or other structure, has one: what it is made of.
        """
        takers = [each for each in self.files[recipe.name].recipes if each.experts]
        if takers:
            return self.sets_asked(takers[0], self.base_of(recipe))
        return (self._made_of(self.files[recipe.name]),)

    def _made_of(self, steps: Steps) -> str:
        """What a file names, as an id: models and runs, without a base that others stand beside."""
        runs = [str(each.window.run) for each in steps.recipes if each.window]
        models = [name for name in steps.referenced_models if name in self.models]
        experts = [name for name in models if self.models[name].base is not None]
        return "+".join(sorted({*runs, *(experts if experts or runs else models)}))

    def takes_experts(self, recipe: Recipe) -> bool:
        """Return whether any document of a file takes experts, so that its sets have plans."""
        return any(each.experts for each in self.files[recipe.name].recipes)

    def sets_asked(self, document: Recipe, base: str) -> tuple[str, ...]:
        """Return the ids of the expert sets that one document asks for, sorted."""
        question = (base, document.sets_question)
        if question not in self._asked:
            sets = document.expert_sets(self.experts_of(base))
            self._asked[question] = tuple(sorted(map("+".join, sets)))  # a set_id each
        return self._asked[question]

    @cached_property
    def sets(self) -> tuple[str, ...]:
        """Ids of all expert sets of all recipes, sorted."""
        of_recipes = {self.sets_of(recipe) for recipe in self.recipes.values()}
        if len(of_recipes) == 1:
            return of_recipes.pop()
        return tuple(sorted(set().union(*of_recipes)))

    @cached_property
    def suites_of_runs(self) -> Mapping[str, tuple[str, ...]]:
        """Names of the suites that the steps of each training run are scored on.

        They are those of recipes that have windows over the run.
        """
        found: dict[str, dict[str, None]] = {}
        for steps in self.files.values():
            for document in steps.recipes:
                if document.window is not None and steps.result.suite is not None:
                    found.setdefault(str(document.window.run), {})[steps.result.suite] = None
        return {run: tuple(sorted(suites)) for run, suites in sorted(found.items())}

    def suite_of(self, recipe: Recipe) -> Path | None:
        """Return the suite file that a recipe is scored on."""
        return self.suites[recipe.suite] if recipe.suite else None

    def broken_of(self, kind: str) -> Mapping[str, BrokenPart]:
        """Return the broken parts of one kind by name."""
        return {part.name: part for part in self.broken.values() if part.kind == kind}

    @cached_property
    def _experts_by_base(self) -> Mapping[str, tuple[str, ...]]:
        experts: dict[str, list[str]] = {}
        for name, model in self.models.items():
            if model.base:
                experts.setdefault(model.base, []).append(name)
        return {base: tuple(names) for base, names in experts.items()}

    @cached_property
    def _asked(self) -> dict[Hashable, tuple[str, ...]]:
        """What `sets_asked` has worked out, by base and question."""
        return {}
