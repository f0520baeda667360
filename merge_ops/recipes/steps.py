"""Files of several YAML documents: merges that use the results of others.

As in `mergekit-multi`, a document has a `name` by which later (or earlier) ones call its result;
the one without a name, or the only one that no other uses, is what the file is for.

In a catalog a document with `experts` is merged for each expert set: it takes the experts of the
set beside the models that it lists. A document without merges what it lists and nothing else, once
for each set where it uses, itself or through others, a document that takes experts, and else once.
"""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, cast

from merge_ops.calibration.texts import TextReader
from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes.calibrated import with_texts
from merge_ops.recipes.reading import recipe_documents
from merge_ops.recipes.recipe import Recipe
from merge_ops.recipes.recipe_check import check_recipe
from merge_ops.recipes.structures.window_runs import RunPlaces, with_found_steps


@dataclass(frozen=True)
class Steps:
    """Steps are the recipes of one file, each after those whose results it uses.

    The last recipe makes the file's result.
    """

    recipes: tuple[Recipe, ...]

    @property
    def result(self) -> Recipe:
        """Return the recipe that makes the file's result."""
        return self.recipes[-1]

    @property
    def earlier(self) -> tuple[Recipe, ...]:
        """Return the recipes whose results only later recipes use."""
        return self.recipes[:-1]

    def used_by(self, recipe: Recipe) -> tuple[Recipe, ...]:
        """Return the recipes whose results this recipe names, in order."""
        named = set(recipe.referenced_models)
        return tuple(each for each in self.earlier if each.name in named)

    def takes_experts(self, recipe: Recipe) -> bool:
        """Return whether a recipe is merged for each expert set.

        It is where it has `experts`, or uses the result of a recipe that is.
        """
        return bool(recipe.experts) or any(map(self.takes_experts, self.used_by(recipe)))

    def for_experts(self, names: Sequence[str], base: str) -> Steps:
        """Return the recipes for one expert set, ready to be planned."""
        return Steps(
            tuple(each.for_experts(names, base) if each.experts else each for each in self.recipes)
        )

    def with_seed(self, seed: int | None) -> Steps:
        """Return the steps with another seed, or as they are where it is None."""
        if seed is None:
            return self
        return Steps(tuple(dataclasses.replace(each, seed=seed) for each in self.recipes))

    def with_windows(self, places: RunPlaces) -> Steps:
        """Return the steps with the windows' models listed, which lie in `places`.

        Raises RecipeError where a run or a step of it is not there.
        """
        return Steps(tuple(with_found_steps(each, places) for each in self.recipes))

    def with_texts(self, read: TextReader) -> Steps:
        """Return the steps with their calibration texts read. Raises as `read` does."""
        return Steps(tuple(with_texts(each, read) for each in self.recipes))

    def with_result(self, recipe: Recipe) -> Steps:
        """Return the steps with `recipe` in the place of their result."""
        return Steps((*self.earlier, recipe))

    def up_to(self, recipe: Recipe) -> Steps:
        """Return the steps that are needed for `recipe`, which is then the result."""
        needed = {recipe.name}
        for each in reversed(self.recipes):  # whoever uses it comes after it
            if each.name in needed:
                needed.update(used.name for used in self.used_by(each))
        return Steps(tuple(each for each in self.recipes if each.name in needed))

    @property
    def referenced_models(self) -> tuple[str, ...]:
        """Return every model from outside the file that any recipe names, in order, each once."""
        made = {recipe.name for recipe in self.earlier}
        names = [name for recipe in self.recipes for name in recipe.referenced_models]
        return tuple(name for name in dict.fromkeys(names) if name not in made)


def load_steps(path: Path | str) -> Steps:
    """Read and check a file of one or more documents, and return its recipes.

    Raises RecipeError with every fault that was found.
    """
    path = Path(path)
    own = unicodedata.normalize("NFC", path.stem)  # disks of Macs take letters apart
    documents = recipe_documents(path)
    if len(documents) == 1:
        return Steps((check_recipe(documents[0], own, str(path)),))
    names = [_name(document) for document in documents]
    faults = list(_name_faults([name or own for name in names], names.count(None)))
    recipes: dict[str, Recipe] = {}
    for number, (name, document) in enumerate(zip(names, documents, strict=True), start=1):
        which = f"document {number}{f', {name}' if name else ''}"
        try:
            recipe = check_recipe(document, name or own, f"{path} ({which})")
        except RecipeError as error:
            faults += [
                dataclasses.replace(each, where=f"{which}: {each.where}".removesuffix(": "))
                for each in error.faults
            ]
            continue
        recipes[recipe.name] = recipe
    if faults:
        raise RecipeError(str(path), faults)
    return Steps(_ordered(recipes, str(path), own if None in names else None))


def _name(document: object) -> str | None:
    name = cast(dict[str, Any], document).get("name") if isinstance(document, dict) else None
    return str(name) if name is not None else None


def _name_faults(names: Sequence[str], unnamed: int) -> Iterator[Fault]:
    if unnamed > 1:
        problem = f"{unnamed} of {len(names)} documents have no `name`; only the result"
        yield Fault("", f"{problem} may go without")
        return
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            problem = f"stands in {names.count(name)} documents; names must differ"
            yield Fault(f"name: {name}", problem)


def _ordered(recipes: Mapping[str, Recipe], subject: str, last: str | None) -> tuple[Recipe, ...]:
    """Topological order; the unnamed recipe, or the only unused one, comes last."""
    uses = {
        name: [each for each in recipe.referenced_models if each in recipes]
        for name, recipe in recipes.items()
    }
    try:
        order = list(TopologicalSorter(uses).static_order())
    except CycleError as error:
        circle = " → ".join(error.args[1])
        raise RecipeError(subject, [Fault("", f"documents use one another: {circle}")]) from error
    used = {each for names in uses.values() for each in names}
    unused = [name for name in recipes if name not in used]
    faults = [fault for each in recipes.values() for fault in _stage_faults(each, unused)]
    if faults:
        raise RecipeError(subject, faults)
    result = last or unused[0]
    problem = f"is used by no other document, and the result is '{result}'; remove one of them"
    faults = [Fault(f"name: {name}", problem) for name in unused if name != result]
    for name in order:
        if name != result:
            faults += _step_faults(recipes[name])
    if faults:
        raise RecipeError(subject, faults)
    return tuple(recipes[name] for name in (*(each for each in order if each != result), result))


def _stage_faults(recipe: Recipe, unused: Sequence[str]) -> Iterator[Fault]:
    """Models that are written as the folder in which mergekit-multi keeps a document's result."""
    for model in recipe.referenced_models:
        folder, _, name = model.replace("\\", "/").rstrip("/").rpartition("/")
        if folder and name in unused and name != recipe.name:
            problem = f"is where mergekit-multi keeps the result of document {name}; write `{name}`"
            yield Fault(f"document {recipe.name}: model '{model}'", problem)


def _step_faults(recipe: Recipe) -> Iterator[Fault]:
    """What only the result of a file may say."""
    where = f"document {recipe.name}"
    if recipe.sweep:
        problem = "makes several checkpoints, and the documents that use it need one; move it to"
        yield Fault(f"{where}: sweep", f"{problem} the result")
    for key in ("suite", "gate", "search", "soup"):
        if getattr(recipe, key):
            yield Fault(f"{where}: {key}", "has no effect: only the result is scored; move it")
    if recipe.keep:
        problem = "has no effect: what later documents use is always written; move it to the result"
        yield Fault(f"{where}: keep", problem)
