"""Do these dense models make a mixture of experts? Every fault, told from headers and configs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from merge_ops.arrangement.completeness import named
from merge_ops.arrangement.mixtures.moe_families import (
    ALL_BIASES,
    DEEPSEEK,
    MIXTRAL,
    PARTS,
    QUERY_BIASES,
    QWEN2_MOE,
    TAKEN,
    MoeFamily,
    family_for,
    sliding_layers,
)
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.ties import excluded, find_source, head_is_embedding
from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.plans.agreement.compatibility import check_weights
from merge_ops.plans.agreement.config_agreement import (
    config_cautions,
    config_faults,
    joined_cautions,
)
from merge_ops.plans.agreement.vocabulary_agreement import vocabulary_faults
from merge_ops.recipes.structures.moe_step import MoeStep
from merge_ops.sources.lora.longer_vocabulary import has_vocabulary

_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)")
_OTHERS = ("model.embed_tokens.weight", "model.norm.weight", "lm_head.weight")
_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
_HEAD_NORMS = ("self_attn.q_norm.weight", "self_attn.k_norm.weight")
_ATTENTION = tuple(f"self_attn.{each}_proj.weight" for each in "qkvo")
_MATRICES = tuple(f"mlp.{part}.weight" for part in PARTS)
_BIASES = tuple(f"mlp.{part}.bias" for part in PARTS)


@dataclass(frozen=True)
class MoeFit:
    """What a mixture is made of: its family, the base's tensors that stay, layers and widths."""

    family: MoeFamily
    kept: tuple[str, ...]
    left_out: Mapping[str, str]
    layers: int
    hidden: int
    inner: int
    tied: bool
    cautions: tuple[Caution, ...]


def fit_of(step: MoeStep, checkpoints: Mapping[str, Checkpoint], subject: str) -> MoeFit:
    """Return how the models of a step fit together.

    Raises CompatibilityError with every fault: model types that no family takes or that differ,
    widths, layers and heads that differ, tensors that the family cannot hold.
    """
    base = checkpoints[step.base_model]
    experts = [checkpoints[name] for name in step.model_names]
    others = [each for each in experts if each is not base]
    check_weights([base, *others])
    kind = str(base.config.get("model_type"))
    family = family_for(step, kind)
    faults = list(_type_faults(step, base, others, family))
    if kind not in TAKEN:
        raise CompatibilityError(subject, faults)
    skipped = dict(excluded(base))
    names = [each for each in base.tensors if each not in skipped and not _is_buffer(base, each)]
    faults += _base_faults(base, names, family)
    matrices = {
        name: base.tensors[name].shape
        for name in names
        if (place := _LAYER.fullmatch(name)) and place[2] in _MATRICES
    }
    numbers = sorted({int(place[1]) for name in names if (place := _LAYER.fullmatch(name))})
    stated = base.config.get("num_hidden_layers")
    if numbers != list(range(len(numbers))) or stated not in (None, len(numbers)):
        told = f"has {len(numbers)} layers, and num_hidden_layers is {stated} in config.json"
        faults.append(Fault(base.name, told))
    if step.needs_prompts and not has_vocabulary(base.files):
        problem = "has no tokenizer beside its weights, which prompts are cut into tokens by"
        faults.append(Fault(base.name, f"{problem}: put its tokenizer.json there"))
    for expert in others:
        faults += _expert_faults(base, expert, matrices, len(numbers))
    embedding = base.tensors.get("model.embed_tokens.weight")
    shape = matrices.get("model.layers.0.mlp.gate_proj.weight")
    if faults or embedding is None or shape is None or family is None:
        raise CompatibilityError(subject, faults or [Fault(base.name, "has no layers")])
    cautions = list(_cautions(step, base, others, family))
    cautions += [each for model in others for each in model.cautions]
    kept = tuple(name for name in names if name not in matrices)
    tied = head_is_embedding(base)
    return MoeFit(
        family, kept, skipped, len(numbers), embedding.shape[1], shape[0], tied, tuple(cautions)
    )


def _is_buffer(model: Checkpoint, name: str) -> bool:
    return is_buffer(name, model.tensors[name])


def _type_faults(
    step: MoeStep, base: Checkpoint, others: Sequence[Checkpoint], family: MoeFamily | None
) -> Iterator[Fault]:
    kind = base.config.get("model_type")
    if kind not in TAKEN:
        problem = f"has model_type {kind!r} in config.json; mixtures are made of"
        yield Fault(f"base_model '{base.name}'", f"{problem} {', '.join(TAKEN)}")
        return
    for expert in others:
        other = expert.config.get("model_type")
        if other != kind:
            problem = f"has model_type {other!r}, and {base.name} has {kind!r}; all models of a"
            yield Fault(expert.name, f"{problem} mixture are of one type")
    if family is not None:
        return
    if step.architecture is not None:
        shared = " with a shared expert" if step.shared else ""
        problem = f"is {step.architecture!r}, which is not made of {kind} models{shared};"
        yield Fault("architecture", f"{problem} leave it out to get what fits")
    else:
        problem = f"are for llama, mistral and qwen2 models, and {base.name} is {kind}; remove them"
        yield Fault("shared_experts", problem)


def _base_faults(
    base: Checkpoint, names: Sequence[str], family: MoeFamily | None
) -> Iterator[Fault]:
    """Tensors that have no place in the mixture, and those that it lacks."""
    known = {*_NORMS, *_ATTENTION, *_MATRICES}
    known |= set(_HEAD_NORMS) if base.config.get("model_type") == "qwen3" else set()
    known |= {f"self_attn.{each}" for each in (family.biases if family else ALL_BIASES)}
    biases: list[str] = []
    strange: list[str] = []
    by_layer: dict[int, set[str]] = {}
    for name in names:
        place = _LAYER.fullmatch(name)
        if base.tensors[name].dtype not in FLOAT_DTYPES:
            yield Fault(base.name, f"holds '{name}' as {base.tensors[name].dtype}, and no float")
        if place:
            by_layer.setdefault(int(place[1]), set()).add(place[2])
        if name in _OTHERS or (place and place[2] in known):
            continue
        (biases if name.endswith(".bias") else strange).append(name)
    if biases:
        held = family is MIXTRAL and all(each.endswith(QUERY_BIASES) for each in biases)
        way = "`architecture: qwen` keeps those of q, k and v, " if held else ""
        what = family.name if family else "the mixture"
        problem = f"has {named(biases)}, which {what} cannot hold; {way}and nothing is dropped"
        yield Fault(base.name, f"{problem} silently")
    if strange:
        problem = f"has {named(strange)}, which have no place in a mixture of experts"
        yield Fault(base.name, f"{problem}; save the model by transformers as a causal LM")
    needed = {*_NORMS, *_ATTENTION, *_MATRICES}
    lacking = [
        f"model.layers.{layer}.{part}"
        for layer, parts in sorted(by_layer.items())
        for part in sorted(needed - parts)
    ]
    tied = head_is_embedding(base)
    lacking += [each for each in _OTHERS[: 2 if tied else 3] if each not in names]
    if lacking:
        yield Fault(base.name, f"lacks {named(lacking)}")


def _expert_faults(
    base: Checkpoint, expert: Checkpoint, matrices: Mapping[str, tuple[int, ...]], layers: int
) -> Iterator[Fault]:
    """What of an expert's MLPs does not fit the base's, and what its config says otherwise."""
    missing: list[str] = []
    shaped: list[str] = []
    for name, shape in matrices.items():
        source = find_source(expert, name)
        if source is None:
            missing.append(name)
        elif source.shape != shape:
            shaped.append(f"'{name}' {list(source.shape)}")
        elif source.dtype not in FLOAT_DTYPES:
            yield Fault(expert.name, f"holds '{name}' as {source.dtype}, and no float")
    if missing:
        yield Fault(expert.name, f"lacks {named(missing)}, which {base.name} has")
    if shaped:
        first = next(name for name in matrices if f"'{name}' " in shaped[0])
        more = f" and {len(shaped) - 1} more" if len(shaped) > 1 else ""
        problem = f"has {shaped[0]}{more}, and {base.name} has {list(matrices[first])}: all models"
        yield Fault(expert.name, f"{problem} of a mixture have one hidden and intermediate size")
    places = [place for name in expert.tensors if (place := _LAYER.fullmatch(name))]
    deeper = [place[0] for place in places if int(place[1]) >= layers]
    if deeper:
        yield Fault(expert.name, f"has {named(deeper)}, and {base.name} has {layers} layers")
    biases = [place[0] for place in places if place[2] in _BIASES]
    if biases:
        problem = f"has {named(biases)}, which no moe_expert can hold, and nothing is dropped"
        yield Fault(expert.name, f"{problem} silently")
    if expert.config.get("model_type") == base.config.get("model_type"):
        yield from config_faults(base, expert)


def _cautions(
    step: MoeStep, base: Checkpoint, others: Sequence[Checkpoint], family: MoeFamily
) -> Iterator[Caution]:
    found: list[Caution] = []
    for expert in others:
        found += config_cautions(base, expert)
        if next(vocabulary_faults(base, expert), None) is not None:
            told = (
                f"has another vocabulary than {base.name}: a mixture has the base's tokens, which"
            )
            found.append(Caution(expert.name, f"{told} {expert.name} was not trained on", ""))
    yield from joined_cautions(found)
    if step.shared and not step.shared_is_gated and family is QWEN2_MOE:
        yield Caution(
            "shared_experts",
            "have no prompts: written as Qwen2-MoE with a gate of ½ and twice the weights, which"
            " is what DeepSeek-MoE computes and transformers loads",
            "`architecture: deepseek` writes mergekit-moe's form, which needs remote code",
        )
    if family is DEEPSEEK:
        yield Caution(
            "architecture",
            "DeepSeek MoE (model_type deepseek) is no class of transformers: loading it runs code"
            " from the Hub (deepseek-ai/deepseek-moe-16b-base)",
            "Leave `architecture` out for a mixture that transformers loads",
        )
    if sliding_layers(base.config) and family not in (MIXTRAL, QWEN2_MOE):
        window = base.config.get("sliding_window")
        yield Caution(
            base.name,
            f"attends to a window of {window} tokens, and {family.name} has no such window: longer"
            " texts are read otherwise",
            "",
        )
