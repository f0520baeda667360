"""The config of a new stack: each key that names layers by number, checked by hand."""

import re
from dataclasses import replace

import pytest

from merge_ops.checkpoints.configs.restacking import NewStack, restack
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from tests.models import checkpoint_factory as factory

SIX = {"num_hidden_layers": 6}
# Layers of the first model unless a letter is given: 0 to 3, then 2 to 5 again.
DEEPER = (0, 1, 2, 3, 2, 3, 4, 5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "a"
    factory.write_checkpoint(folder, factory.base_tensors(factory.LLAMA), factory.LLAMA)
    return open_checkpoint("a", FolderSource(folder))


def restacked(model, config, origins=DEEPER, stack="model.layers", **others):
    models = {"a": replace(model, config=config)}
    models |= {name: replace(model, name=name, config=each) for name, each in others.items()}
    pairs = [each if isinstance(each, tuple) else ("a", each) for each in origins]
    found = NewStack(stack, tuple((models[name], number) for name, number in pairs))
    return restack(config, found)


@pytest.mark.parametrize(
    ("key", "before", "after"),
    [
        ("num_hidden_layers", 6, 8),
        # Lists with an entry for each layer.
        ("layer_types", ["f", "s", "f", "s", "g", "h"], ["f", "s", "f", "s", "f", "s", "g", "h"]),
        ("no_rope_layers", [1, 1, 1, 0, 1, 1], [1, 1, 1, 0, 1, 0, 1, 1]),
        ("intermediate_size", [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 3, 4, 5, 6]),
        ("hybrid_override_pattern", "M*-M*-", "M*-M-M*-"),
        # Lists of the layers of a kind.
        ("mlp_only_layers", [0, 2], [0, 2, 4]),
        ("mlp_only_layers", [], []),
        ("moe_layers", [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7]),
        ("cross_attention_layers", [3], [3, 5]),
        ("full_attn_idxs", [2, 5], [2, 4, 7]),
        # Thresholds.
        ("first_k_dense_replace", 1, 1),
        ("max_window_layers", 6, 8),
        ("num_kv_shared_layers", 2, 2),
        # Periods of one are none.
        ("decoder_sparse_step", 1, 1),
        # No numbers of layers.
        ("eos_token_id", [1, 2], [1, 2]),
        ("vision_feature_layer", [1, 3], [1, 3]),
        ("rope_scaling", {"factor": 2.0}, {"factor": 2.0}),
        ("num_nextn_predict_layers", 1, 0),
        ("mtp_num_layers", 2, 0),
    ],
)
def test_a_key_follows_the_layers(model, key, before, after):
    config, cautions = restacked(model, {**SIX, key: before})
    assert config[key] == after
    assert config["num_hidden_layers"] == 8
    assert cautions == []


def test_each_layer_keeps_what_its_own_model_says(model):
    other = {**SIX, "mlp_only_layers": [5], "layer_types": list("uvwxyz")}
    config, cautions = restacked(
        model,
        {**SIX, "mlp_only_layers": [0], "layer_types": list("abcdef")},
        (0, 1, ("b", 4), ("b", 5)),
        b=other,
    )
    assert config["mlp_only_layers"] == [0, 3]
    assert config["layer_types"] == ["a", "b", "y", "z"]
    assert cautions == []


@pytest.mark.parametrize(
    ("changes", "origins", "problem"),
    [
        ({"first_k_dense_replace": 3}, DEEPER,
         r"put layer 3 of a at 3, where `first_k_dense_replace` of config.json \(now 4\)"),
        ({"full_attention_interval": 4}, DEEPER, r"put layer 2 of a at 4, where `full_attention_i"),
        ({"decoder_sparse_step": 2}, (0, 1, 3, 4), r"put layer 3 of a at 2, where `decoder_sparse"),
        ({"num_kv_shared_layers": 3}, DEEPER, r"put layer 3 of a at 3, where `num_kv_shared_layer"),
        ({"max_window_layers": 3, "use_sliding_window": True}, DEEPER, r"`max_window_layers`"),
    ],
)  # fmt: skip
def test_what_the_key_cannot_say_is_a_caution(model, changes, origins, problem):
    _, (caution,) = restacked(model, {**SIX, **changes}, origins)
    assert re.search(problem, str(caution))
    assert "Choose ranges that keep the order" in caution.advice


@pytest.mark.parametrize(
    "changes",
    [
        {"full_attention_interval": 4, "layer_types": list("abcdef")},
        {"max_window_layers": 3, "use_sliding_window": False},
        {"full_attention_interval": "4"},
    ],
)
def test_a_key_without_effect_is_no_caution(model, changes):
    assert restacked(model, {**SIX, **changes})[1] == []


def test_a_period_that_the_ranges_keep_is_kept(model):
    config, cautions = restacked(model, {**SIX, "decoder_sparse_step": 2}, (0, 1, 2, 3, 2, 3, 4, 5))
    assert (config["decoder_sparse_step"], cautions) == (2, [])


def test_the_count_of_a_tower_is_changed_in_its_section(model):
    config = {"text_config": dict(SIX), "vision_config": {"depth": 6, "hidden_size": 8}}
    changed, _ = restacked(model, config, stack="model.visual.blocks")
    assert changed == {"text_config": SIX, "vision_config": {"depth": 8, "hidden_size": 8}}
    assert config["vision_config"]["depth"] == 6


def test_a_number_that_is_said_twice_is_changed_twice(model):
    changed, _ = restacked(model, {"num_layers": 6, "num_hidden_layers": 6}, stack="h")
    assert changed == {"num_layers": 8, "num_hidden_layers": 8}
    two = {"num_layers": 6, "num_decoder_layers": 6}
    changed, _ = restacked(model, two, stack="decoder.block")
    assert changed == {"num_layers": 6, "num_decoder_layers": 8}


def test_a_part_that_stays_behind_the_stack_stays_in_the_config(model):
    config = {
        **SIX, "num_nextn_predict_layers": 1, "layer_types": list("abcdefM"), "moe_layers": [1, 6],
    }  # fmt: skip
    found = replace(model, config=config)
    stack = NewStack("model.layers", tuple((found, number) for number in (0, 1, 1)), further=1)
    changed, _ = restack(config, stack)
    assert changed["num_nextn_predict_layers"] == 1
    assert changed["layer_types"] == ["a", "b", "b", "M"]
    assert changed["moe_layers"] == [1, 2, 3]
