"""Files of several YAML documents: merges that use the results of others, planned as one.

As in `mergekit-multi`, a document has a `name` by which later (or earlier) ones call its result;
the one without a name, or the only one that no other uses, is what the file is for. All stages are
planned from headers before any of them runs: the headers of a result are known from its plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, cast

from merge_ops.assembly import side_files
from merge_ops.checkpoint import Checkpoint
from merge_ops.errors import Fault, RecipeError
from merge_ops.header import TensorEntry
from merge_ops.layout import DEFAULT_SHARD_BYTES
from merge_ops.plan import Plan, plan_merge
from merge_ops.recipe import Recipe, read_documents
from merge_ops.recipe_check import check_recipe


@dataclass(frozen=True)
class Stages:
    """The recipes of one file, each after those whose results it uses; the last is the result."""

    recipes: tuple[Recipe, ...]

    @property
    def result(self) -> Recipe:
        """The recipe that the file is for."""
        return self.recipes[-1]

    @property
    def earlier(self) -> tuple[Recipe, ...]:
        """The recipes whose results only later ones use."""
        return self.recipes[:-1]

    @property
    def referenced_models(self) -> tuple[str, ...]:
        """Every model of the outside that any recipe names, in order, once each."""
        made = {recipe.name for recipe in self.earlier}
        names = [name for recipe in self.recipes for name in recipe.referenced_models]
        return tuple(name for name in dict.fromkeys(names) if name not in made)


def load_stages(path: Path) -> Stages:
    """Read and check a file of one or more documents. Raises RecipeError with every fault found."""
    documents = read_documents(path)
    if len(documents) == 1:
        return Stages((check_recipe(documents[0], path.stem, str(path)),))
    names = [_name(document) for document in documents]
    _check_names([name or path.stem for name in names], names.count(None), str(path))
    recipes: dict[str, Recipe] = {}
    for number, (name, document) in enumerate(zip(names, documents, strict=True), start=1):
        subject = f"{path} (document {number}{f', {name}' if name else ''})"
        recipe = check_recipe(document, name or path.stem, subject)
        recipes[recipe.name] = recipe
    return Stages(_ordered(recipes, str(path), path.stem if None in names else None))


def _name(document: object) -> str | None:
    name = cast(dict[str, Any], document).get("name") if isinstance(document, dict) else None
    return str(name) if name is not None else None


def _check_names(names: Sequence[str], unnamed: int, subject: str) -> None:
    faults = [
        Fault(f"name: {name}", f"stands in {names.count(name)} documents; names must differ")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    if unnamed > 1:
        problem = f"{unnamed} of {len(names)} documents have no `name`; only the result"
        faults = [Fault("", f"{problem} may go without")]
    if faults:
        raise RecipeError(subject, faults)


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
    result = last or unused[0]
    idle = [name for name in unused if name != result]
    if idle:
        problem = f"is used by no other document, and the result is '{result}'; remove one of them"
        raise RecipeError(subject, [Fault(f"name: {idle[0]}", problem)])
    swept = [name for name in order if name != result and recipes[name].sweep]
    if swept:
        problem = "makes several checkpoints, and the documents that use it need one; move it to"
        raise RecipeError(recipes[swept[0]].subject, [Fault("sweep", f"{problem} the result")])
    return tuple(recipes[name] for name in (*(each for each in order if each != result), result))


def plan_stages(
    stages: Stages, opened: Mapping[str, Checkpoint], shard_bytes: int = DEFAULT_SHARD_BYTES
) -> tuple[Plan, ...]:
    """A plan for each recipe, in order; from headers alone."""
    known = dict(opened)
    plans: list[Plan] = []
    for recipe in stages.recipes:
        plans.append(plan_merge(recipe, known, shard_bytes=shard_bytes))
        known[recipe.name] = planned_checkpoint(plans[-1])
    return tuple(plans)


def planned_checkpoint(plan: Plan) -> Checkpoint:
    """What a plan without a sweep will write, known by its headers alone."""
    tensors: dict[str, TensorEntry] = {}
    for shard in plan.shards:
        offset = len(shard.header)
        for tensor in shard.tensors:
            tensors[tensor.name] = TensorEntry(
                tensor.dtype, tensor.shape, shard.file, offset, tensor.nbytes
            )
            offset += tensor.nbytes
    source = _SideFiles(f"the result of '{plan.recipe.name}'", plan)
    digest = plan.outputs[0].digest
    return Checkpoint(plan.recipe.name, source, tensors, plan.config, digest, source.sizes())


class _SideFiles:
    """The files beside the weights of a checkpoint that is only planned."""

    def __init__(self, location: str, plan: Plan) -> None:
        self._location = location
        self._files = side_files(plan)

    @property
    def location(self) -> str:
        """For messages."""
        return self._location

    def sizes(self) -> Mapping[str, int]:
        """Sizes of the side files."""
        return {name: len(data) for name, data in self._files.items()}

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Bytes of a side file; the weights are not there yet."""
        if file not in self._files:
            raise OSError(f"{self._location} holds no {file} yet")
        buffer[:] = self._files[file][offset : offset + len(buffer)]


MergeStage = Callable[[Plan], Checkpoint]


def run_stages(
    stages: Stages,
    opened: Mapping[str, Checkpoint],
    merge_stage: MergeStage,
    shard_bytes: int = DEFAULT_SHARD_BYTES,
) -> Plan:
    """Make every earlier result by `merge_stage`, in order; returns the plan of the last."""
    known = dict(opened)
    for recipe in stages.earlier:
        known[recipe.name] = merge_stage(plan_merge(recipe, known, shard_bytes=shard_bytes))
    return plan_merge(stages.result, known, shard_bytes=shard_bytes)
