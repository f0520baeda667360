"""Configs that give the same weights another meaning, on every level and by every name."""

import copy
import warnings

import pytest
from transformers import CONFIG_MAPPING

from merge_ops.checkpoints.configs.config_defaults import (
    ACTIVATION,
    EPSILON,
    HEADS,
    ROTARY_SHARE,
    THETA,
    class_default,
    known_classes,
)
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import Caution, CompatibilityError
from merge_ops.plans.agreement.compatibility import check_compatible
from merge_ops.plans.agreement.config_agreement import joined_cautions
from tests.models import checkpoint_factory as factory
from tests.models.compared_configs import LLAMA, model, told


def changed(config, place="", **changes):
    """The config with some keys changed at a level; a key of None is left out."""
    made = copy.deepcopy(config)
    level = made
    for part in filter(None, place.split(".")):
        level = level.setdefault(part, {})
    level |= changes
    for key in [key for key, value in changes.items() if value is None]:
        del level[key]
    return made


def nested(place, level=LLAMA):
    """A config with Llama's keys at one of its levels."""
    made = {"model_type": "toy"}
    inner = made
    for part in place.split("."):
        inner = inner.setdefault(part, {})
    inner |= level
    return made


# -------------------------------------------------------------------------------------- levels

LEVELS = (
    "text_config", "vision_config", "audio_config", "llm_config", "encoder", "decoder",
    "thinker_config.text_config", "thinker_config.audio_config", "talker_config",
    "vision_config.attention", "text_config.inner.deeper",
)  # fmt: skip


@pytest.mark.parametrize("place", LEVELS)
@pytest.mark.parametrize("key", ["num_attention_heads", "num_key_value_heads"])
def test_every_level_is_compared(place, key):
    ours = nested(place)
    faults, cautions = told(ours, changed(ours, place, **{key: 8}))
    assert faults == [
        f"e1 has {key} 8 in config.json ({place}), base has {LLAMA[key]}; the same numbers mean"
        " different weights there"
    ]
    assert not cautions
    assert told(ours, copy.deepcopy(ours)) == ([], [])


@pytest.mark.parametrize("place", LEVELS)
def test_every_level_has_its_warnings(place):
    ours = nested(place)
    theirs = changed(ours, place, rms_norm_eps=1e-6, rope_theta=5e5, max_position_embeddings=4096)
    faults, cautions = told(ours, theirs)
    assert not faults
    assert sorted(each.split()[2] for each in cautions) == [
        "max_position_embeddings",
        "rms_norm_eps",
        "rope_theta",
    ]
    assert all(f"config.json ({place}), base has" in each for each in cautions)


def test_keys_at_the_top_and_in_text_config_are_the_same_keys():
    """As transformers 4 and 5 write Qwen2-VL: other levels, other names of types, one model."""
    flat = {**LLAMA, "model_type": "qwen2_vl", "vision_config": {"model_type": "qwen2_vl"}}
    text = {**LLAMA, "model_type": "qwen2_vl_text"}
    vision = {"model_type": "qwen2_vl_vision", "num_heads": 16}
    new = {"model_type": "qwen2_vl", "text_config": text, "vision_config": vision}
    assert told(flat, new) == ([], [])
    assert told(new, flat) == ([], [])
    faults, cautions = told(
        flat, changed(new, "text_config", num_attention_heads=8, rope_theta=7.0)
    )
    assert "num_attention_heads 8 in config.json (text_config)" in faults[0]
    assert "rope_theta 7.0 in config.json (text_config)" in cautions[0]
    other = {**new, "llm_config": new["text_config"]}
    del other["text_config"]
    assert told(new, other) == ([], [])


def test_other_types_are_a_fault_on_every_level():
    ours = nested("text_config")
    faults, _ = told(ours, changed(ours, "text_config", model_type="mistral"))
    assert "model_type 'mistral' in config.json (text_config), base has 'llama'" in faults[0]
    faults, _ = told({"model_type": "clip_text_model"}, {"model_type": "clip_vision_model"})
    assert faults


def test_tables_of_settings_are_no_levels():
    ours = {**LLAMA, "task_specific_params": {"a": {"num_heads": 1}}, "id2label": {"n_head": 1}}
    theirs = {**LLAMA, "task_specific_params": {"a": {"num_heads": 2}}, "id2label": {"n_head": 2}}
    assert told(ours, theirs) == ([], [])


# ------------------------------------------------------------------------- aliases and defaults


@pytest.mark.parametrize(
    ("ours", "theirs", "faulty"),
    [
        ({"n_head": 4}, {"num_attention_heads": 4}, False),
        ({"n_head": 4}, {"num_attention_heads": 8}, True),
        ({"multi_query_group_num": 2}, {"num_key_value_heads": 2}, False),
        ({"multi_query_group_num": 2}, {"num_key_value_heads": 4}, True),
        ({"d_kv": 8}, {"d_kv": 16}, True),
        ({"kv_channels": 128}, {"head_dim": 64}, True),
        ({"encoder_attention_heads": 4}, {"encoder_attention_heads": 8}, True),
        ({"qk_rope_head_dim": 64}, {"qk_rope_head_dim": 32}, True),
        ({"kv_lora_rank": 512}, {"kv_lora_rank": 256}, True),
        ({"position_embedding_type": "absolute"}, {"position_embedding_type": "rotary"}, True),
        ({"position_embedding_type": "absolute"}, {}, False),
        ({"rotary_dim": 64}, {"rotary_dim": 32}, True),
        ({"partial_rotary_factor": 0.5}, {"partial_rotary_factor": 1.0}, True),
        ({"rotary_pct": 0.25}, {"partial_rotary_factor": 0.25}, False),
        ({"rotary_pct": 0.25}, {"rope_parameters": {"partial_rotary_factor": 0.5}}, True),
        ({"rope_interleave": True}, {"rope_interleave": False}, True),
        ({"alibi": True}, {"alibi": False}, True),
        ({"linear_num_value_heads": 32}, {"linear_num_value_heads": 16}, True),
        ({"mamba_n_groups": 8}, {"mamba_n_groups": 1}, True),
        ({"spatial_merge_size": 2}, {"spatial_merge_size": 4}, True),
        # what one file leaves out
        ({"head_dim": 8}, {}, False),
        ({"num_key_value_heads": None}, {"num_key_value_heads": 4}, False),
        ({"head_dim": None}, {"head_dim": 8}, False),
    ],
)
def test_one_key_under_several_names(ours, theirs, faulty):
    toy = {"model_type": "toy", "hidden_size": 32}
    assert bool(told({**toy, **ours}, {**toy, **theirs})[0]) is faulty
    assert bool(told({**toy, **theirs}, {**toy, **ours})[0]) is faulty


def test_a_class_has_defaults():
    """Google's Gemma 3 leaves out of text_config what its fine-tunes state."""
    ours = {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}
    full = {
        "model_type": "gemma3_text",
        "num_attention_heads": 8,
        "head_dim": 256,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "hidden_activation": "gelu_pytorch_tanh",
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
    }
    assert told(ours, {"model_type": "gemma3", "text_config": full}) == ([], [])
    assert told({"model_type": "gemma3", "text_config": full}, ours) == ([], [])
    other = {**full, "num_attention_heads": 4, "rms_norm_eps": 1e-5}
    faults, cautions = told(ours, {"model_type": "gemma3", "text_config": other})
    assert "num_attention_heads 4 in config.json (text_config), base has 8" in faults[0]
    assert "rms_norm_eps 1e-05 in config.json (text_config), base has 1e-06" in cautions[0]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {"num_attention_heads": 8}),
        ({}, {"alibi": True}),
        ({}, {"position_embedding_type": "relative_key"}),
        ({}, {"partial_rotary_factor": 0.5}),
    ],
)
def test_a_default_that_is_not_certain_is_a_caution(ours, theirs):
    toy = {"model_type": "toy", "hidden_size": 32}
    faults, [caution] = told({**toy, **ours}, {**toy, **theirs})
    assert not faults
    assert "one of them by default" in caution
    assert "in both config.json" in caution


@pytest.mark.parametrize("kind", known_classes())
def test_defaults_are_those_of_transformers(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = CONFIG_MAPPING[kind]().to_dict()

    def first(*names):
        return next((config[name] for name in names if config.get(name) is not None), None)

    row = {"model_type": kind}
    heads = first("num_attention_heads", "n_head", "num_heads", "n_heads")
    assert class_default(row, HEADS) == heads
    norms = first(
        "rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"
    )
    assert class_default(row, EPSILON) == norms
    act = first("hidden_act", "hidden_activation", "activation_function", "activation")
    assert class_default(row, ACTIVATION) == act
    rope = config.get("rope_parameters") or {}
    rope = rope.get("full_attention", rope)
    if rope.get("rope_type") != "axial":
        assert class_default(row, THETA) == rope.get("rope_theta")
    assert class_default(row, ROTARY_SHARE) == rope.get("partial_rotary_factor")


# ------------------------------------------------------------------------------------- warnings


@pytest.mark.parametrize(
    ("ours", "theirs", "key"),
    [
        ({"seq_length": 32768}, {"max_position_embeddings": 8192}, "max_position_embeddings"),
        ({"n_positions": 1024}, {"n_positions": 2048}, "n_positions"),
        ({"max_sequence_length": 8}, {"seq_length": 8}, None),
        ({"layer_norm_epsilon": 1e-5}, {"layer_norm_eps": 1e-5}, None),
        ({"layernorm_epsilon": 1e-5}, {"layernorm_epsilon": 1e-6}, "layernorm_epsilon"),
        ({"activation_function": "gelu"}, {"hidden_act": "relu"}, "hidden_act"),
        ({"sliding_window": 4096}, {"sliding_window": None}, "sliding_window"),
        (
            {"sliding_window": 4096, "use_sliding_window": False},
            {"sliding_window": None, "use_sliding_window": False},
            None,
        ),
        ({"num_experts_per_tok": 2}, {"num_experts_per_tok": 4}, "num_experts_per_tok"),
        ({"moe_topk": 2}, {"num_experts_per_tok": 2}, None),
        ({"final_logit_softcapping": 30.0}, {"final_logit_softcapping": None}, "final_logit"),
        ({"architectures": ["A"]}, {"architectures": ["B"]}, "architectures"),
        ({"architectures": ["A"]}, {}, None),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, None),
        ({"torch_dtype": "float32"}, {"dtype": "bfloat16"}, None),
        ({"use_cache": True}, {"use_cache": False, "transformers_version": "5"}, None),
        ({"rope_ratio": 1}, {"rope_ratio": 500}, "rope_ratio"),
    ],
)
def test_what_is_worth_a_warning(ours, theirs, key):
    toy = {"model_type": "toy", "hidden_size": 32, "num_hidden_layers": 2}
    faults, cautions = told({**toy, **ours}, {**toy, **theirs})
    assert not faults
    assert [key in each for each in cautions] == ([True] if key else [])
    assert all("Where the expert's is meant, change" in each for each in cautions)


def test_lists_of_other_depths_are_not_compared():
    ours = {**LLAMA, "layer_types": ["full_attention"] * 2}
    deeper = {**LLAMA, "num_hidden_layers": 3, "layer_types": ["full_attention"] * 3}
    assert told(ours, deeper) == ([], [])
    other = {**LLAMA, "layer_types": ["full_attention", "sliding_attention"]}
    assert "layer_types" in told(ours, other)[1][0]


def test_equal_warnings_of_several_experts_are_one():
    experts = [model(f"e{n}", {**LLAMA, "rope_theta": 5e5}) for n in (1, 2)]
    experts.append(model("e3", {**LLAMA, "rope_theta": 7.0}))
    first, second = check_compatible(model("base", LLAMA), experts)
    assert str(first).startswith("e1, e2 have rope_theta 500000.0 in config.json, base has 10000.0")
    assert str(second).startswith("e3 has rope_theta 7.0")
    same = Caution("a", "is odd", "x")
    assert joined_cautions([same, same, Caution("b", "is odd", "x")]) == [
        Caution("a, b", "is odd", "x")
    ]


def test_experts_of_a_base_without_a_config_are_compared_with_one_another():
    experts = [model("e1", LLAMA), model("e2", {**LLAMA, "num_attention_heads": 8})]
    with pytest.raises(CompatibilityError, match=r"e2 has num_attention_heads 8 .* e1 has 4"):
        check_compatible(model("base", {}), experts)


def test_all_faults_are_told_at_once():
    ours, theirs = nested("text_config"), nested("text_config")
    theirs["text_config"] |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    with pytest.raises(CompatibilityError, match=r"num_attention_heads 8(.|\n)*value_heads 4"):
        check_compatible(model("base", ours), [model("e1", theirs)])


@pytest.mark.parametrize("odd", [7, "x", [], {}, [[]], {"a": {"b": []}}, True, None])
@pytest.mark.parametrize(
    "key",
    [
        "rope_parameters",
        "rope_scaling",
        "rope_theta",
        "text_config",
        "num_attention_heads",
        "model_type",
        "architectures",
    ],
)
def test_odd_values_are_compared_as_they_are(key, odd):
    """Strangers' files hold anything; no value may stop the comparison by its type."""
    told({**LLAMA, key: odd}, LLAMA)
    told(LLAMA, {**LLAMA, key: odd})
    assert told({**LLAMA, key: odd}, {**LLAMA, key: odd}) == ([], [])


def test_two_depths_of_the_same_tensors_are_refused(tmp_path):
    """transformers would load fewer layers of one of them."""
    family = factory.write_family(tmp_path, factory.LLAMA, experts=1)
    factory.edit_config(family.experts[0], num_hidden_layers=2)
    opened = [open_checkpoint(str(each)) for each in (family.base, *family.experts)]
    with pytest.raises(CompatibilityError, match=r"num_hidden_layers 2 in config.json, .* has 3"):
        check_compatible(opened[0], opened[1:])
