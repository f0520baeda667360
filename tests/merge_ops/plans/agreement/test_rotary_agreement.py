"""Rotary embeddings in every notation: the same settings, and others that are told of."""

import copy

import pytest
from transformers import CONFIG_MAPPING

from merge_ops.checkpoints.configs.rotary_settings import rotary_settings
from tests.models.compared_configs import LLAMA, told

PLAIN = {key: value for key, value in LLAMA.items() if key != "rope_theta"}
YARN = {"factor": 4.0, "original_max_position_embeddings": 32}
LINEAR = {"rope_type": "linear", "factor": 8.0}
ROTARY = {
    "rope_theta": {"rope_theta": 5e5},
    "rope_parameters": {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "integer": {"rope_theta": 500000, "rope_scaling": None},
    "by_layer": {
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
    "gpt_neox": {"rotary_emb_base": 5e5},
    "yarn": {"rope_theta": 5e5, "rope_scaling": {"type": "yarn", **YARN}},
    "new_yarn": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 5e5, **YARN}},
    "gemma3": {"rope_theta": 5e5, "rope_local_base_freq": 1e4, "rope_scaling": LINEAR},
    "new_gemma3": {
        "rope_parameters": {
            "full_attention": {**LINEAR, "rope_theta": 5e5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        }
    },
    "mrope": {"rope_theta": 5e5, "rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}},
    "new_mrope": {
        "rope_parameters": {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [1, 2]}
    },
}
SAME = (
    {"rope_theta", "rope_parameters", "integer", "gpt_neox", "by_layer"},
    {"yarn", "new_yarn"},
    {"gemma3", "new_gemma3"},
    {"mrope", "new_mrope"},
)


@pytest.mark.parametrize("ours", sorted(ROTARY))
@pytest.mark.parametrize("theirs", sorted(ROTARY))
@pytest.mark.parametrize("place", ["", "text_config"])
def test_only_the_notation_differs_or_more(ours, theirs, place):
    configs = [{**PLAIN, **ROTARY[name]} for name in (ours, theirs)]
    if place:
        configs = [{"model_type": "toy", place: each} for each in configs]
    faults, cautions = told(*configs)
    assert not faults
    assert bool(cautions) is not any({ours, theirs} <= group for group in SAME)
    assert all("rope_scaling" in each for each in cautions)


@pytest.mark.parametrize("name", sorted(ROTARY))
def test_another_base_is_seen_in_every_notation(name):
    """Also by a file that leaves it out, as Llama's did: 10000."""
    for other in ({"rope_theta": 7.0}, {"rope_parameters": {"rope_theta": 7.0}}, {}):
        theta = 7.0 if other else 10000.0
        _, cautions = told({**PLAIN, **other}, {**PLAIN, **ROTARY[name]})
        found = [each for each in cautions if "rope_theta" in each]
        assert (
            f"500000{'' if name == 'integer' else '.0'} in config.json, base has {theta}"
            in (found[0])
        )


def test_the_base_of_windowed_layers_alone():
    ours = {**PLAIN, **ROTARY["new_gemma3"]}
    theirs = copy.deepcopy(ours)
    theirs["rope_parameters"]["sliding_attention"]["rope_theta"] = 2e4
    _, [caution] = told(ours, theirs)
    assert "e1 has rope_theta of sliding_attention 20000.0 in config.json" in caution


def test_rotary_settings_are_those_that_transformers_makes_of_old_files():
    """transformers reads both notations of the older files and writes its own."""
    old = {**LLAMA, "rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}
    new = CONFIG_MAPPING["llama"](**copy.deepcopy(old)).to_dict()
    assert "rope_theta" not in new
    assert rotary_settings(old) == rotary_settings(new)
    gemma = {"model_type": "gemma3_text", "hidden_size": 32, "rope_scaling": dict(LINEAR)}
    gemma |= {"rope_theta": 1e6, "rope_local_base_freq": 2e4}
    made = CONFIG_MAPPING["gemma3_text"](**copy.deepcopy(gemma)).to_dict()
    assert rotary_settings(gemma) == rotary_settings(made)
