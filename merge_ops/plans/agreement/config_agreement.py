"""Do two configs give the same weights the same meaning?

Every level of config.json is compared, under all names that families have for a key. A key that a
file leaves out means its class's default, where that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.configs.config_defaults import ACTIVATION, EPSILON, HEADS, class_default
from merge_ops.checkpoints.configs.config_levels import Pair, paired_levels, same_part
from merge_ops.checkpoints.configs.rotary_settings import FULL, LOCAL_THETA, Rotary, rotary_settings
from merge_ops.errors import Caution, Fault


class Key(NamedTuple):
    """A key of configs has one or more names, and perhaps a default.

    `column` is that of the class's default, `usual` the default of every class. With neither, a key
    that is left out says nothing.
    """

    names: tuple[str, ...]
    column: int | None = None
    usual: Any = None


# Shapes do not show these, and with different values the same weights compute something else.
SAME_MEANING = (
    Key(("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"), HEADS),
    Key(("encoder_attention_heads",)),
    Key(("decoder_attention_heads",)),
    Key(("num_key_value_heads", "num_kv_heads", "n_head_kv", "n_kv_heads", "kv_n_heads",
         "multi_query_group_num")),
    Key(("head_dim", "d_kv", "kv_channels", "attention_head_dim", "d_head")),
    Key(("q_lora_rank",)), Key(("kv_lora_rank",)), Key(("v_head_dim",)),
    Key(("qk_nope_head_dim",)), Key(("qk_rope_head_dim",)),
    Key(("linear_num_key_heads",)), Key(("linear_num_value_heads",)),
    Key(("linear_key_head_dim",)), Key(("linear_value_head_dim",)),
    Key(("mamba_n_heads", "mamba_num_heads")), Key(("mamba_n_groups", "n_groups")),
    Key(("state_size", "mamba_d_state")),
    Key(("position_embedding_type",), usual="absolute"),
    Key(("rotary_dim",)),
    Key(("rope_interleave", "rope_interleaved", "rotary_interleaved"), usual=False),
    Key(("alibi", "use_alibi"), usual=False),
    Key(("use_parallel_residual", "parallel_attn")), Key(("new_decoder_architecture",)),
    Key(("multi_query", "multi_query_attention")),
    Key(("patch_size",)), Key(("temporal_patch_size",)), Key(("spatial_merge_size",)),
    Key(("downsample_ratio",)),
)  # fmt: skip
# Merging goes on, but the expert was trained for another value.
WORTH_A_WARNING = (
    Key(("rope_ratio",)),
    Key(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "layernorm_epsilon", "norm_eps",
         "norm_epsilon"), EPSILON),
    Key(("hidden_act", "hidden_activation", "activation_function", "activation", "act_fn",
         "dense_act_fn", "feed_forward_proj"), ACTIVATION),
    Key(("max_position_embeddings", "max_sequence_length", "seq_length", "n_positions",
         "max_seq_len", "max_seq_length", "n_ctx")),
    Key(("sliding_window",)), Key(("max_window_layers",)), Key(("layer_types",)),
    Key(("attention_chunk_size",)), Key(("no_rope_layers",)), Key(("no_rope_layer_interval",)),
    Key(("num_experts_per_tok", "num_experts_per_token", "num_selected_experts", "moe_topk",
         "moe_k", "top_k_experts")),
    Key(("norm_topk_prob",)), Key(("routed_scaling_factor",), usual=1.0), Key(("scoring_func",)),
    Key(("n_group",)), Key(("topk_group",)), Key(("topk_method",)),
    Key(("attn_logit_softcapping",)), Key(("final_logit_softcapping",)),
    Key(("query_pre_attn_scalar",)), Key(("logit_scale",)), Key(("logits_scaling",), usual=1.0),
    Key(("embedding_multiplier", "scale_emb"), usual=1.0),
    Key(("attention_multiplier",)), Key(("residual_multiplier", "scale_depth"), usual=1.0),
    Key(("scale_attn_weights",), usual=True),
    Key(("scale_attn_by_inverse_layer_idx",), usual=False),
    Key(("is_decoder",), usual=False), Key(("use_bidirectional_attention",), usual=False),
    Key(("image_size",)), Key(("vision_feature_layer",)),
    Key(("vision_feature_select_strategy",)), Key(("projector_hidden_act",)),
    Key(("window_size",)), Key(("fullatt_block_indexes",)),
)  # fmt: skip
_HEADS = SAME_MEANING[0]
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "embed_dim", "num_hidden_layers", "n_layer")


class _Difference(NamedTuple):
    """Two values of one key; `sure` is false where one of them is a default of most classes."""

    name: str
    place: str
    ours: Any
    theirs: Any
    sure: bool = True


def configured_first(base: Checkpoint, experts: Sequence[Checkpoint]) -> Checkpoint:
    """Return the model that others are compared with: the base, or the first that has a config."""
    return next((each for each in (base, *experts) if each.config), base)


def config_faults(base: Checkpoint, expert: Checkpoint) -> Iterator[Fault]:
    """Yield what gives the same weights another meaning in an expert than in the base."""
    for found in _of_meaning(base, expert):
        if found.sure:
            yield Fault(
                expert.name,
                f"has {_stated(found)}, {base.name} has {found.ours!r}; the same numbers mean"
                " different weights there",
            )


def config_cautions(base: Checkpoint, expert: Checkpoint) -> Iterator[Caution]:
    """Yield what an expert was trained with and the merged checkpoint will not have."""
    for found in _of_meaning(base, expert):
        if not found.sure:
            yield Caution(
                expert.name,
                f"has {_stated(found)}, {base.name} has {found.ours!r}, one of them by default;"
                " if that is so, the same numbers mean different weights there",
                f"State {found.name} in both config.json",
            )
    for found in _worth_a_warning(base, expert):
        yield Caution(
            expert.name,
            f"has {_stated(found)}, {base.name} has {found.ours!r}; the merged checkpoint takes the"
            " latter",
            f"Where the expert's is meant, change {found.name} in the result's config.json",
        )


def joined_cautions(cautions: Iterable[Caution]) -> list[Caution]:
    """Return the cautions, each once; equal ones of several models become one that names them."""
    places: dict[tuple[str, str], list[str]] = {}
    for each in cautions:
        where = places.setdefault((each.problem, each.advice), [])
        if each.where not in where:
            where.append(each.where)
    return [
        Caution(", ".join(where), _of_several(problem) if len(where) > 1 else problem, advice)
        for (problem, advice), where in places.items()
    ]


def _of_several(problem: str) -> str:
    """A sentence about one model as one about several."""
    return "have " + problem.removeprefix("has ") if problem.startswith("has ") else problem


def _stated(found: _Difference) -> str:
    where = f"config.json ({found.place})" if found.place else "config.json"
    return f"{found.name} {found.theirs!r} in {where}"


def _of_meaning(base: Checkpoint, expert: Checkpoint) -> Iterator[_Difference]:
    for pair in paired_levels(base.config, expert.config):
        yield from _model_types(pair)
        for key in SAME_MEANING:
            yield from _differences(key, pair)
        yield from _heads_of_nothing(pair)
        yield from _rotary_shares(pair)


def _worth_a_warning(base: Checkpoint, expert: Checkpoint) -> Iterator[_Difference]:
    if base.config and expert.config:
        ours, theirs = base.config.get("architectures"), expert.config.get("architectures")
        if ours and theirs and ours != theirs:
            yield _Difference("architectures", "", ours, theirs)
    for pair in paired_levels(base.config, expert.config):
        yield from _rotary(pair)
        for key in WORTH_A_WARNING:
            for found in _differences(key, pair):
                if not _has_no_effect(found, pair):
                    yield found


def _model_types(pair: Pair) -> Iterator[_Difference]:
    ours, theirs = pair.ours.get("model_type"), pair.theirs.get("model_type")
    if ours is not None and theirs is not None and not same_part(ours, theirs):
        yield _Difference("model_type", pair.place, ours, theirs)


def _differences(key: Key, pair: Pair) -> Iterator[_Difference]:
    """Where two levels give a key different values, or one leaves out what is no default."""
    common = [name for name in key.names if name in pair.ours and name in pair.theirs]
    for name in common:
        ours, theirs = pair.ours[name], pair.theirs[name]
        if ours != theirs and not _is_unset(key, ours, theirs):
            yield _Difference(name, pair.place, ours, theirs)
    if common:
        return
    stated = [_first(key, level) for level in (pair.ours, pair.theirs)]
    name = (stated[1] or stated[0] or ("", None))[0]
    if not name:
        return
    sure, values = True, [each[1] if each else None for each in stated]
    for number, level in enumerate((pair.ours, pair.theirs)):
        if stated[number] is None:
            if not _describes(level):
                return
            own = class_default(level, key.column) if key.column is not None else None
            values[number] = key.usual if own is None else own
            sure = sure and own is not None
            if values[number] is None:
                return
    if values[0] != values[1]:
        yield _Difference(name, pair.place, values[0], values[1], sure)


def _is_unset(key: Key, ours: Any, theirs: Any) -> bool:
    """Whether a value is null where that says nothing."""
    return key in SAME_MEANING and (ours is None or theirs is None)


def _first(key: Key, level: Mapping[str, Any]) -> tuple[str, Any] | None:
    return next(((name, level[name]) for name in key.names if level.get(name) is not None), None)


def _heads_of_nothing(pair: Pair) -> Iterator[_Difference]:
    """Heads that one level leaves out, of a class that is not known here."""
    levels = (pair.ours, pair.theirs)
    stated = [_first(_HEADS, level) for level in levels]
    if stated.count(None) != 1 or any(class_default(level, HEADS) for level in levels):
        return
    if not all(map(_describes, levels)):
        return
    name, _ = next(each for each in stated if each)
    values = [each[1] if each else None for each in stated]
    yield _Difference(name, pair.place, values[0], values[1], sure=False)


def _has_no_effect(found: _Difference, pair: Pair) -> bool:
    """Whether a difference changes nothing: windows that are not used, lists of other depths."""
    if found.name in ("sliding_window", "max_window_layers"):
        windows = [
            None if level.get("use_sliding_window") is False else value
            for level, value in ((pair.ours, found.ours), (pair.theirs, found.theirs))
        ]
        return windows[0] == windows[1]
    if isinstance(found.ours, list) and isinstance(found.theirs, list):
        depths = [level.get("num_hidden_layers") for level in (pair.ours, pair.theirs)]
        return depths[0] != depths[1]  # a plan of slices puts other lists together
    return False


def _rotary_pairs(pair: Pair) -> Iterator[tuple[str, Rotary, Rotary]]:
    """The rotary embeddings to compare, with the type of layer where it has one."""
    ours, theirs = rotary_settings(pair.ours), rotary_settings(pair.theirs)
    if not any(each.stated for each in (*ours.values(), *theirs.values())):
        return
    if not _describes(pair.ours) or not _describes(pair.theirs):
        return
    if ours.keys() == theirs.keys():
        yield from ((kind, ours[kind], theirs[kind]) for kind in ours)
        return
    # One speaks of all layers and one of types: what is said of all holds for each of them.
    for kind in dict.fromkeys((*ours, *theirs)):
        pairs = (ours.get(kind) or ours.get(""), theirs.get(kind) or theirs.get(""))
        if kind and pairs[0] and pairs[1]:
            if kind != FULL and (theirs if kind in theirs else ours)[kind].theta == LOCAL_THETA:
                continue  # the default of such layers, which a file may leave out
            yield kind, pairs[0], pairs[1]


def _rotary(pair: Pair) -> Iterator[_Difference]:
    for kind, ours, theirs in _rotary_pairs(pair):
        of_layers = f" of {kind}" if kind else ""
        if ours.theta != theirs.theta:
            yield _Difference(f"rope_theta{of_layers}", pair.place, ours.theta, theirs.theta)
        if ours.scaling != theirs.scaling:
            before, after = dict(ours.scaling) or None, dict(theirs.scaling) or None
            yield _Difference(f"rope_scaling{of_layers}", pair.place, before, after)


def _rotary_shares(pair: Pair) -> Iterator[_Difference]:
    for _, ours, theirs in _rotary_pairs(pair):
        if ours.share != theirs.share:
            known = ours.share is not None and theirs.share is not None
            before, after = (1.0 if each is None else each for each in (ours.share, theirs.share))
            if before != after:
                yield _Difference("partial_rotary_factor", pair.place, before, after, known)
                return


def _describes(level: Mapping[str, Any]) -> bool:
    """Whether a level describes a part of a model itself, and not its parts alone."""
    return any(name in level for name in _WIDTHS) or class_default(level, HEADS) is not None
