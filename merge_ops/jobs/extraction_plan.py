"""What a LoRA adapter will hold of a fine-tuned model: which tensors differ, and how each is kept.

Matrices that differ are decomposed; biases beside them, embeddings, heads and norms are kept whole.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, with_digests
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.name_alignment import named_alike
from merge_ops.checkpoints.names.tensor_names import is_embedding, is_head, shape_fault
from merge_ops.checkpoints.names.tie_names import HEAD
from merge_ops.checkpoints.names.ties import excluded, find_source, head_is_embedding, own_heads
from merge_ops.errors import CompatibilityError, Fault, SettingsError
from merge_ops.plans.agreement.compatibility import check_compatible
from merge_ops.plans.agreement.integer_agreement import integer_faults
from merge_ops.sources.lora.adapters import PREFIX
from merge_ops.stream.block_reader import read_values

BLOCK = 1 << 20


@dataclass(frozen=True)
class ExtractionSettings:
    """Extraction settings say how an adapter is extracted.

    `rank` is the largest rank, `distribute_scale` says where the singular values go, and `include`
    and `exclude` choose tensors by regular expression.
    """

    rank: int = 128
    distribute_scale: bool = True
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = [] if self.rank >= 1 else [Fault("rank", f"is {self.rank}; it must be above 0")]
        for pattern in (*self.include, *self.exclude):
            try:
                re.compile(pattern)
            except re.error as error:
                faults.append(Fault(f"pattern {pattern!r}", f"is no regular expression ({error})"))
        if faults:
            raise SettingsError("extracting an adapter", faults)

    def wants(self, name: str) -> bool:
        """Return whether a tensor's changes are to be kept."""
        if any(re.search(pattern, name) for pattern in self.exclude):
            return False
        return not self.include or any(re.search(pattern, name) for pattern in self.include)


@dataclass(frozen=True)
class Extraction:
    """An extraction is the plan of an adapter that is made of a tuned model.

    It holds ranks by module, tensors kept whole, and what is left out.
    """

    base: Checkpoint
    tuned: Checkpoint
    settings: ExtractionSettings
    ranks: Mapping[str, int]
    whole: Mapping[str, str]
    saved_modules: tuple[str, ...]
    left_out: tuple[str, ...]


def _check_shapes(base: Checkpoint, tuned: Checkpoint) -> None:
    faults: list[Fault] = []
    for name in _names(base, tuned):
        ours, theirs = known_source(base, name).shape, known_source(tuned, name).shape
        if ours != theirs:
            faults.append(shape_fault(base, tuned, name, ours, theirs))
    if faults:
        raise CompatibilityError(f"no adapter makes {tuned.name} of {base.name}", faults)


def plan_extraction(
    base: Checkpoint,
    tuned: Checkpoint,
    settings: ExtractionSettings,
    digests: Mapping[ByteSource, str] | None = None,
) -> Extraction:
    """Find which tensors differ and how each can be kept, and return the plan.

    `digests` are those of the places that the models are read from. Reads both once. Raises
    CompatibilityError where they do not fit, where no adapter can keep a difference, and where
    there is nothing to decompose.
    """
    base, tuned = with_digests(base, digests or {}), with_digests(tuned, digests or {})
    base, tuned = _named_alike(base, tuned)
    check_compatible(base, [tuned], vocabularies="reported")  # an adapter has no tokenizer
    _check_shapes(base, tuned)
    names = [name for name in _names(base, tuned) if _differs(base, tuned, name)]
    left_out = [name for name in names if not settings.wants(name)]
    faults = [
        fault
        for name in _names(base, tuned)
        if known_source(base, name).dtype not in FLOAT_DTYPES
        for fault in integer_faults(base, name, [tuned], [name])
    ]
    ranks: dict[str, int] = {}
    rest: list[str] = []
    for name in names:
        if name in left_out:
            continue
        source = known_source(tuned, name)
        module, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias") or len(source.shape) > 2:
            what = f"differs with shape {list(source.shape)}, which no adapter of PEFT can keep"
            faults.append(Fault(f"'{name}'", f"{what}; leave it out with --exclude"))
        elif kind == "weight" and len(source.shape) == 2 and not _by_token(name):
            ranks[module] = min(settings.rank, *source.shape)
        else:
            rest.append(name)
    if not ranks and not faults:
        problem = "there is no matrix that differs and is included; nothing can be decomposed"
        faults.append(Fault(tuned.name, problem))
    if faults:
        raise CompatibilityError(f"no adapter can be made of {tuned.name}", faults)
    tied = head_is_embedding(tuned) and head_is_embedding(base)
    if tied and any(map(is_embedding, rest)):
        rest.append(HEAD)  # PEFT would leave it what it was
    whole, saved = _kept_whole(rest, ranks, tuned)
    return Extraction(base, tuned, settings, ranks, whole, saved, tuple(left_out))


def _named_alike(base: Checkpoint, tuned: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Both with the names of the one that has the prefix of the body: PEFT loads a model so."""
    ours, theirs = (sum(map(len, each.tensors)) for each in (base, tuned))
    if ours < theirs:
        return named_alike(tuned, [base])[0], tuned
    return base, named_alike(base, [tuned])[0]


def _names(base: Checkpoint, tuned: Checkpoint) -> list[str]:
    heads = own_heads([base, tuned])
    own = heads | (base.tensors.keys() - excluded(base).keys())
    skipped = excluded(base).keys() | excluded(tuned).keys()
    return sorted((base.tensors.keys() | heads) - (skipped - own), key=natural_key)


def _by_token(name: str) -> bool:
    """Embeddings and heads: one row for each token, and rarely of low rank."""
    return is_embedding(name) or is_head(name)


def known_source(checkpoint: Checkpoint, name: str) -> TensorSource:
    """Return the source of a tensor that the plan names.

    That of a tied head is the embedding.
    """
    source = find_source(checkpoint, name)
    assert source is not None  # check_compatible has been through all names
    return source


def _differs(base: Checkpoint, tuned: Checkpoint, name: str) -> bool:
    import torch

    before, after = known_source(base, name), known_source(tuned, name)
    if before.dtype not in FLOAT_DTYPES:
        return False  # whole numbers agree: integer_faults has looked
    whole = math.prod(before.shape)
    for start in range(0, whole, BLOCK):
        pair = [read_values(each, start, min(BLOCK, whole - start)) for each in (before, after)]
        if not torch.equal(*pair):
            return True
    return False


def _kept_whole(
    names: list[str], ranks: Mapping[str, int], tuned: Checkpoint
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Keys in the adapter by tensor, and the modules that PEFT must save as a whole."""
    keys: dict[str, str] = {}
    saved: dict[str, None] = {}
    for name in names:
        module, _, kind = name.rpartition(".")
        if module in ranks:
            keys[name] = f"{PREFIX}{module}.base_layer.{kind}"
            continue
        saved[module] = None
        for each in (f"{module}.weight", f"{module}.bias"):
            if find_source(tuned, each) is not None:
                keys[each] = PREFIX + each
    return keys, tuple(saved)
