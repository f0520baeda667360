"""Recipes: mergekit's YAML keys, and beside them what makes one file a whole study.

A file is checked completely before anything else happens: every unknown key, wrong type and
impossible value is reported at once, with its place and what is allowed.

The keys, mergekit's and ours, with what each does: docs/recipe_keys.yaml, docs/recipes.md.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from merge_ops.methods.parameters import REQUIRED, is_gradient
from merge_ops.methods.registry import MergeMethod
from merge_ops.recipes.router_policy import RouterPolicy
from merge_ops.recipes.structures.expand_step import ExpandStep
from merge_ops.recipes.structures.moe_fewer import FewerStep
from merge_ops.recipes.structures.moe_step import MoeStep
from merge_ops.recipes.structures.symmetry_step import SymmetryStep
from merge_ops.recipes.structures.vocabulary_step import VocabularyStep
from merge_ops.recipes.structures.window_step import WindowStep
from merge_ops.recipes.sweep import Coefficient, Parameters, sweep_points
from merge_ops.recipes.vocabulary_policy import TokenizerPolicy

DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
ALL_PAIRS, ALL = "all-pairs", "all"
SEARCHED = "searched"
"""The one coefficient of a recipe with a `search` or a `soup`: the point that won it."""
SOUPS = ("greedy", "soce")  # how the members of a soup are chosen from its experts' scores
KEEP_CHAMPION, KEEP_ALL, KEEP_NONE = "champion", "all", "none"
KEEPS = (KEEP_CHAMPION, KEEP_ALL, KEEP_NONE)
"""Which candidates of a recipe are written; the others are planned, and made when they are read."""
STRUCTURES = ("moe", "window", "expand", "conversion", "symmetry", "vocabulary", "fewer")
"""Fields of steps that are no merge of an expert set: they make what they name into one model."""


@dataclass(frozen=True)
class ModelEntry:
    """A model entry is one entry of `models:`: a model reference and its own parameters."""

    model: str
    parameters: Parameters = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class SliceSource:
    """A slice source is one model of a slice: its layers [first, end) and its parameters."""

    model: str
    layer_range: tuple[int, int]
    parameters: Parameters = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class SliceEntry:
    """A slice entry merges layers of several models into layers of the output."""

    sources: tuple[SliceSource, ...]
    base_model: str | None = None
    parameters: Parameters = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Section:
    """A section states what is merged with what: the whole recipe, or one entry of `modules:`.

    It has either `models` or `slices`. Places in messages begin with `where`.
    """

    models: tuple[ModelEntry, ...] = ()
    slices: tuple[SliceEntry, ...] = ()
    parameters: Parameters = field(default_factory=dict[str, Any])
    where: str = ""

    @property
    def model_names(self) -> list[str]:
        """Return every model that the section names, in order, repeated as written."""
        names = [entry.model for entry in self.models]
        for entry in self.slices:
            names += [each.model for each in entry.sources]
            names += [entry.base_model] if entry.base_model else []
        return names


@dataclass(frozen=True)
class Recipe:
    """A recipe is one checked document of a recipe file.

    `experts` is empty in a plain mergekit file; `models` may be empty in ours. `keep` is what the
    file says, None where it says nothing; `kept` is what holds. Without `verify` a catalog does not
    ask transformers whether it would load the result. `title` and `description` are words for
    people: nothing that is made depends on them.
    """

    name: str
    subject: str
    merge_method: str
    method: MergeMethod
    models: tuple[ModelEntry, ...] = ()
    slices: tuple[SliceEntry, ...] = ()
    modules: Mapping[str, Section] = field(default_factory=dict[str, Section])
    base_model: str | None = None
    parameters: Parameters = field(default_factory=dict[str, Any])
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer: TokenizerPolicy | None = None
    chat_template: str | None = None
    experts: tuple[str | tuple[str, ...], ...] = ()
    sweep: Mapping[str, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    suite: str | None = None
    gate: Mapping[str, Any] = field(default_factory=dict[str, Any])
    search: Mapping[str, Any] = field(default_factory=dict[str, Any])
    soup: str | None = None
    keep: str | None = None
    verify: bool = True
    accept_licence_conflicts: tuple[str, ...] = ()
    seed: int = 0
    symmetry: SymmetryStep | None = None
    router: RouterPolicy | None = None
    conversion: str | None = None
    moe: MoeStep | None = None
    window: WindowStep | None = None
    expand: ExpandStep | None = None
    vocabulary: VocabularyStep | None = None
    fewer: FewerStep | None = None
    title: str | None = None
    description: str | None = None

    @property
    def structure(self) -> str | None:
        """Return the field of the recipe's own kind of step (STRUCTURES), None for a merge."""
        return next((each for each in STRUCTURES if getattr(self, each) is not None), None)

    @property
    def kept(self) -> str:
        """Return which candidates are written: `champion`, `all` or `none`.

        Unsaid it is `champion` with a suite; without one, or where no manifest says all, `all`.
        """
        if self.needs_writing:
            return KEEP_ALL
        return self.keep or (KEEP_CHAMPION if self.suite else KEEP_ALL)

    @property
    def needs_writing(self) -> bool:
        """Return whether more than recipe and models decides the bytes: numbers, a secret key."""
        return self.measures or bool(self.symmetry and self.symmetry.key)

    @property
    def calibrates(self) -> bool:
        """Return whether rows of routers are fitted on texts."""
        return any(each and each.calibrates for each in (self.router, self.fewer))

    @property
    def measures(self) -> bool:
        """Return whether numbers are measured on texts or prompts before it can be merged."""
        gated = self.moe and self.moe.needs_prompts
        return bool(gated or self.calibrates or (self.fewer and self.fewer.measures))

    @property
    def writes_all(self) -> bool:
        """Return whether every candidate is written when it is merged."""
        return self.kept == KEEP_ALL

    @property
    def referenced_models(self) -> tuple[str, ...]:
        """Return every model that the recipe names, in order, each once: merged ones first."""
        named = self.tokenizer.model_names if self.tokenizer else ()
        beside = [self.symmetry.base] if self.symmetry and self.symmetry.base else []
        beside += [self.vocabulary.model] if self.vocabulary and self.vocabulary.model else []
        mixed = self.moe.model_names if self.moe else ()
        return tuple(dict.fromkeys([*self.merged_models, *named, *beside, *mixed]))

    @property
    def merged_models(self) -> tuple[str, ...]:
        """Return every model whose weights are merged, in order, each once."""
        names = [name for each in self.sections for name in each.model_names]
        return tuple(dict.fromkeys([*names, *([self.base_model] if self.base_model else [])]))

    @property
    def sections(self) -> tuple[Section, ...]:
        """Return the sections of `modules`, or the whole recipe as one section."""
        return tuple(self.modules.values()) or (self.section,)

    @property
    def section(self) -> Section:
        """Return the recipe's own `models` or `slices` as a section."""
        return Section(self.models, self.slices)

    @property
    def is_searched(self) -> bool:
        """Return whether its one point is looked for, by scores, before it is merged."""
        return bool(self.search or self.soup)

    def coefficients(self) -> tuple[Coefficient, ...]:
        """Return the points of the sweep in order.

        There is one point without a sweep: `searched` with a search or a soup, else `default`.
        """
        if self.is_searched:
            return (Coefficient(SEARCHED, {}),)
        return sweep_points(self.sweep, plain=self.window is not None)

    @property
    def on_task_vectors(self) -> bool:
        """Return whether the method sees expert − base instead of whole checkpoints."""
        either = self.method.inputs == "either" and self.base_model is not None
        return either or self.method.inputs == "task_vectors"

    @property
    def has_gradient(self) -> bool:
        """Return whether any parameter is a gradient over the layers."""
        specs = self.method.parameter_specs
        return any(
            is_gradient(setting)
            for table in self._parameter_tables
            for name, setting in table.items()
            if name in specs and not specs[name].is_list
        )

    @property
    def missing_parameters(self) -> tuple[str, ...]:
        """Return the required parameters that the recipe gives nowhere: no tensor has a value.

        One that is given somewhere may still lack a value for some tensor, which planning tells.
        """
        searched: Parameters = self.search.get("parameters") or {}
        tables = (*self._parameter_tables, self.sweep, searched)
        given = {name for table in tables for name in table}
        if self.soup or self.window:
            given.add("weight")
        specs = self.method.parameter_specs.values()
        return tuple(s.name for s in specs if s.default is REQUIRED and s.name not in given)

    @property
    def _parameter_tables(self) -> list[Parameters]:
        tables = [self.parameters]
        for section in self.sections:
            tables.append(section.parameters)
            tables += [entry.parameters for entry in section.models]
            for entry in section.slices:
                tables.append(entry.parameters)
                tables += [source.parameters for source in entry.sources]
        return tables

    @property
    def merges_whole_models(self) -> bool:
        """Return whether all models must have the same tensors.

        They must where the recipe has neither `slices` nor `modules`.
        """
        return not self.slices and not self.modules

    def expert_sets(self, expert_names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
        """Return the expert sets that `experts:` asks for, each sorted, equal ones once.

        A method of exactly n models gets only the sets that make n models together with the models
        that the recipe lists.
        """
        names = sorted(expert_names)
        sets: list[tuple[str, ...]] = []
        for entry in self.experts:
            if entry == ALL_PAIRS:
                sets.extend(itertools.combinations(names, 2))
            elif entry == ALL:
                sets.append(tuple(names))
            else:
                sets.append(tuple(sorted(entry)))
        if self.method.exactly is not None:
            listed = self._models_beside_sets
            sets = [each for each in sets if len({*each, *listed}) == self.method.exactly]
        return tuple(dict.fromkeys(each for each in sets if each))

    @property
    def sets_question(self) -> tuple[object, ...]:
        """Return what `expert_sets` reads of the recipe: equal questions have equal answers."""
        exactly = self.method.exactly
        beside = None if exactly is None else frozenset(self._models_beside_sets)
        return self.experts, exactly, beside

    @property
    def _models_beside_sets(self) -> set[str]:
        listed = {entry.model for entry in self.models}
        if self.on_task_vectors and self.base_model is not None:
            listed -= {self.base_model}
        return listed

    def for_experts(self, names: Sequence[str], base: str) -> Recipe:
        """Return the recipe for one expert set, ready to be planned.

        It lists its models by name. Models of `models:` outside the set come first; all listed
        models keep their parameters. slerp, which goes from one model to another, starts at the
        first expert of the set.
        """
        own = {entry.model: entry for entry in self.models}
        experts = [own.get(name, ModelEntry(name)) for name in sorted(names)]
        extra = [entry for entry in self.models if entry.model not in names]
        if self.on_task_vectors:
            start: str | None = self.base_model or base
        else:
            start = experts[0].model if self.method.base == "required" else None
        return dataclasses.replace(self, models=(*extra, *experts), base_model=start, experts=())

    def averaging(self, weights: Mapping[str, float]) -> Recipe:
        """Return the concrete recipe of a soup: these models, each with its weight."""
        members = tuple(ModelEntry(name, {"weight": weights[name]}) for name in sorted(weights))
        return dataclasses.replace(self, models=members, experts=())

    def at(self, shared: Parameters, by_model: Mapping[str, Parameters]) -> Recipe:
        """Return the recipe with parameters of one point: of all models, and of some by name.

        They take the place of what the recipe gives there, and of its search. A model that it does
        not list yet is listed, as an expert with parameters of its own is.
        """
        listed = {entry.model: entry for entry in self.models}
        for name, own in by_model.items():
            before = listed.get(name, ModelEntry(name))
            listed[name] = ModelEntry(name, {**before.parameters, **own})
        return dataclasses.replace(
            self, parameters={**self.parameters, **shared}, models=tuple(listed.values())
        )


def set_id(names: Sequence[str]) -> str:
    """Return the id of an expert set: its sorted names joined by `+`."""
    return "+".join(sorted(names))
