"""A plan: a recipe resolved against real headers.

For every output tensor it says where it goes, what it is made of, and with which parameters, for
all coefficients of a sweep at once. Nothing but headers and configs is read. Every tensor of every
input is merged, copied or excluded by name.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import blake3

from merge_ops.arrangement.groups import Arrangement
from merge_ops.checkpoints.checkpoint import Checkpoint, stacked_digest
from merge_ops.checkpoints.configs.config import merged_config
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.layout import Shard
from merge_ops.checkpoints.names.tensor_names import is_head
from merge_ops.errors import Caution
from merge_ops.methods.registry import MergeMethod
from merge_ops.plans.parameter_rows import ParameterRow, parameter_rows
from merge_ops.plans.steps import Copy, Merge, Reuse, Step
from merge_ops.recipes.recipe import Coefficient, Recipe
from merge_ops.vocabularies.output_tokenizer import OutputTokenizer

if TYPE_CHECKING:  # few plans have one, and starting is counted
    from merge_ops.arrangement.mixtures.aligned_experts import ExpertAligner

PLAN_VERSION = 5
HEX_PIECE = 1 << 16  # bytes of a header whose digits are made at once
GRADIENTS = (
    "gradients run over the layers of a stack (of a slice); embeddings, final norm and output head"
    " take the FIRST value of a gradient, as in mergekit; layers behind those that config.json"
    " counts take the last"
)


@dataclass(frozen=True)
class Output:
    """An output is one checkpoint that the plan makes."""

    coefficient: str
    values: Mapping[str, Any]
    digest: str | None


@dataclass(frozen=True)
class Plan:
    """A plan states everything that a merge will do: one step for each tensor, in file order.

    `outputs` has one entry for each coefficient. `base` gives the config, and the tokenizer unless
    `tokenizer` replaces it. `digests` holds the digests of models that were opened without one, by
    the place that their files are read from. `arithmetic` is the kind of device whose bits the
    digests stand for (stream.device). `beside` are the models that give a mixture of experts its
    moe_experts: their tensors are the base's here, under new names. `aligner` finds the order of a
    mixture's moe_experts when the first of them is read (`align: base`).
    """

    recipe: Recipe
    base: Checkpoint
    arrangement: Arrangement
    steps: tuple[Step, ...]
    shards: tuple[Shard, ...]
    coefficients: tuple[Coefficient, ...]
    cautions: tuple[Caution, ...]
    tokenizer: OutputTokenizer | None = None
    digests: Mapping[ByteSource, str] = field(default_factory=dict["ByteSource", str])
    arithmetic: str = "cpu"
    beside: tuple[Checkpoint, ...] = ()
    aligner: ExpertAligner | None = None

    @property
    def method(self) -> MergeMethod:
        """Return the merge method."""
        return self.recipe.method

    @cached_property
    def inputs(self) -> tuple[Checkpoint, ...]:
        """Return the checkpoints that the method combines, in order, each once."""
        found = [each for group in self.arrangement.groups for each in group.inputs]
        return tuple({checkpoint.name: checkpoint for checkpoint in found}.values())

    @cached_property
    def widest(self) -> int:
        """Return the largest number of inputs that any tensor has."""
        return max((len(group.inputs) for group in self.arrangement.groups), default=1)

    @property
    def excluded(self) -> Mapping[str, str]:
        """Return the input tensors that are not written, each with the reason."""
        return self.arrangement.excluded

    @cached_property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Return every model that takes part, each once: first the base, then the inputs."""
        members = [each for group in self.arrangement.groups for each in group.members]
        unique = {each.name: each for each in (self.base, *self.inputs, *members, *self.beside)}
        return tuple(unique.values())

    def role_of(self, checkpoint: Checkpoint) -> str:
        """Return what a model is in the merge, in words.

        It is a base only where the recipe names it as one; a first model that stands in for it
        gives the config and the tokenizer, and is an expert as the others are.
        """
        if any(group.base_name == checkpoint.name for group in self.arrangement.groups):
            return "base"
        if self.recipe.moe and checkpoint is self.base:
            return "base"
        if self.recipe.vocabulary and any(checkpoint is each for each in self.beside):
            return "gives its vocabulary"
        if checkpoint is self.base:
            return "expert (gives config and tokenizer)"
        return "expert"

    @property
    def model_names(self) -> tuple[str, ...]:
        """Return the names of the base and the inputs."""
        return tuple(checkpoint.name for checkpoint in self.checkpoints)

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Return the output's config.json.

        It is the base's config, changed to state the dtype, the layers and the head as written.
        """
        heads = any(is_head(step.output.name) for step in self.steps)
        written = self.recipe.out_dtype or self.recipe.dtype
        config = merged_config(self.base, self.arrangement.stacks, heads, written)
        return self.tokenizer.configured(config) if self.tokenizer else config

    @cached_property
    def parameter_rows(self) -> tuple[ParameterRow, ...]:
        """Return the parameters in words, a row for tensors that are merged alike.

        They are those of the first coefficient.
        """
        return parameter_rows(self.steps)

    @cached_property
    def bytes_read(self) -> int:
        """Return the bytes of all input tensors, each counted once."""
        return sum(step.nbytes for step in self.steps)

    @property
    def bytes_written(self) -> int:
        """Return the bytes of weights that are written for all coefficients together."""
        return sum(shard.size for shard in self.shards) * len(self.coefficients)

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Return an output for every coefficient.

        Its digest is None where the digest of an input is not known.
        """
        return tuple(
            Output(each.id, each.values, self._digest(position))
            for position, each in enumerate(self.coefficients)
        )

    def digest_of(self, checkpoint: Checkpoint) -> str | None:
        """Return the content digest of a model of the plan, or None where it is not known."""
        if not self.digests:
            return checkpoint.digest
        if checkpoint.made_of:
            return stacked_digest([self.digest_of(each) for each in checkpoint.made_of])
        return self.digests.get(checkpoint.source, checkpoint.digest)

    def with_digests(self, digests: Mapping[ByteSource, str]) -> Plan:
        """Return the same plan with the content digests of its models.

        `digests` names them by the place that each model is read from. So a plan can be made, and
        its faults can be shown, before anything is hashed.
        """
        return dataclasses.replace(self, digests={**self.digests, **digests})

    def with_coefficients(self, ids: Collection[str]) -> Plan:
        """Return the plan for the coefficients with these ids only, in the plan's order."""
        positions = [at for at, each in enumerate(self.coefficients) if each.id in ids]

        def chosen(step: Step) -> Step:
            if isinstance(step, Reuse):
                made = tuple(step.made[at] for at in positions)
                return Reuse(_parameters_of(step.planned, positions), made)
            return _parameters_of(step, positions)

        return dataclasses.replace(
            self,
            steps=tuple(chosen(step) for step in self.steps),
            coefficients=tuple(self.coefficients[at] for at in positions),
        )

    def _digest(self, coefficient: int) -> str | None:
        if any(self.digest_of(checkpoint) is None for checkpoint in self.checkpoints):
            return None
        identity: dict[str, Any] = {
            "version": PLAN_VERSION,
            "method": self.method.identity,
            "arithmetic": self.arithmetic,
            "seed": self.recipe.seed if self.method.random else None,
            "base": self.digest_of(self.base),
            "config": self.config,
            "streams": [c.name for c in self.inputs] if self.method.random else None,
            "excluded": sorted(self.excluded),
        }
        if self.tokenizer and self.tokenizer.digest:
            identity["tokenizer"] = self.tokenizer.digest
        hasher = blake3.blake3()
        lists = {"shards": _hexes(self.shards), "tensors": _joined(self._identities(coefficient))}
        for text in _pieces_of(identity, lists):
            hasher.update(text.encode())
        return hasher.hexdigest()

    def _identities(self, coefficient: int) -> Iterator[list[Any]]:
        """What each tensor is made from; equal parameters are one object, and copied once."""
        plain: dict[int, dict[str, Any]] = {}
        for step in (each.planned for each in self.steps):
            shared = id(step.parameters[coefficient]) if step.parameters else 0
            if shared not in plain:
                plain[shared] = plain_parameters(step.parameters, coefficient)
            sources = [source.identity(self.digest_of) for source in step.sources]
            yield [step.output.name, step.action, sources, plain[shared]]


def _pieces_of(content: Mapping[str, Any], lists: Mapping[str, Iterable[str]]) -> Iterator[str]:
    """The JSON of `content` with `lists`, each given as the pieces of the JSON of its items.

    It is what `json.dumps` gives with sorted keys and no blanks.
    """
    comma = "{"
    for key in sorted([*content, *lists]):
        yield f"{comma}{_compact(key)}:"
        comma = ","
        if key in lists:
            yield "["
            yield from lists[key]
            yield "]"
        else:
            yield _compact(content[key])
    yield "}"


def _joined(items: Iterable[Any]) -> Iterator[str]:
    """The JSON of items, some thousand at a time."""
    several = iter(items)
    comma = ""
    while piece := list(itertools.islice(several, 1000)):
        yield comma + _compact(piece)[1:-1]
        comma = ","


def _hexes(shards: Iterable[Shard]) -> Iterator[str]:
    """The shards' headers in hexadecimal digits, each as a JSON text in pieces."""
    comma = ""
    for shard in shards:
        yield f'{comma}"'
        for start in range(0, len(shard.header), HEX_PIECE):
            yield shard.header[start : start + HEX_PIECE].hex()
        yield '"'
        comma = ","


def _compact(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _parameters_of(step: Merge | Copy, positions: Sequence[int]) -> Merge | Copy:
    """The step with the parameters of some coefficients."""
    if isinstance(step, Copy):
        return step
    return dataclasses.replace(step, parameters=tuple(step.parameters[at] for at in positions))


def plain_parameters(parameters: Sequence[Any], position: int) -> dict[str, Any]:
    """Return one coefficient's parameters of a tensor as plain data.

    A tensor that is copied has none: the result is empty.
    """
    return dataclasses.asdict(parameters[position]) if parameters else {}
