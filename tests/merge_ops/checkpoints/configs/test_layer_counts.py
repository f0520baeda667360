"""How many layers a config counts, of families with one stack, with two, and with layers behind."""

import pytest

from merge_ops.checkpoints.configs.layer_counts import (
    LayerCount,
    counted_layers,
    further_layers,
    layer_count,
)

LAYERS = "num_hidden_layers"


@pytest.mark.parametrize(
    ("config", "stack", "expected"),
    [
        ({LAYERS: 4}, "model.layers", LayerCount((), LAYERS, 4)),
        ({"n_layer": 4}, "transformer.h", LayerCount((), "n_layer", 4)),
        ({LAYERS: 12}, "bert.encoder.layer", LayerCount((), LAYERS, 12)),
        # T5, BART and Whisper count the two sides by themselves.
        ({"num_layers": 2, "num_decoder_layers": 3}, "decoder.block",
         LayerCount((), "num_decoder_layers", 3)),
        ({"num_layers": 2, "num_decoder_layers": 3}, "encoder.block",
         LayerCount((), "num_layers", 2)),
        ({"encoder_layers": 2, "decoder_layers": 3, LAYERS: 2}, "model.decoder.layers",
         LayerCount((), "decoder_layers", 3)),
        ({"encoder": {LAYERS: 2}, "decoder": {"n_layer": 3}}, "decoder.transformer.h",
         LayerCount(("decoder",), "n_layer", 3)),
        # Towers.
        ({"text_config": {LAYERS: 4}, "vision_config": {"depth": 2}}, "model.visual.blocks",
         LayerCount(("vision_config",), "depth", 2)),
        ({"text_config": {LAYERS: 4}, "vision_config": {"depth": 2}},
         "model.language_model.layers", LayerCount(("text_config",), LAYERS, 4)),
        ({"llm_config": {LAYERS: 4}, "vision_config": {LAYERS: 2}},
         "vision_model.encoder.layers", LayerCount(("vision_config",), LAYERS, 2)),
        ({LAYERS: 4, "audio_config": {"encoder_layers": 3}}, "audio_tower.layers",
         LayerCount(("audio_config",), "encoder_layers", 3)),
        ({"thinker_config": {"text_config": {LAYERS: 4}}}, "thinker.model.layers",
         LayerCount(("thinker_config", "text_config"), LAYERS, 4)),
        # A text config's count says nothing of a tower that has no section.
        ({LAYERS: 4}, "visual.blocks", None),
        # Flux: `num_layers` counts the double blocks alone.
        ({"num_layers": 19}, "transformer_blocks", LayerCount((), "num_layers", 19)),
        ({"num_layers": 19}, "single_transformer_blocks", None),
        ({"num_layers": 19, "num_single_layers": 38}, "single_transformer_blocks",
         LayerCount((), "num_single_layers", 38)),
        ({LAYERS: 4}, "down_blocks", None),
        # What strangers write.
        ({LAYERS: True}, "model.layers", None),
        ({LAYERS: "4"}, "model.layers", None),
        ({LAYERS: -1, "text_config": 3}, "model.layers", None),
        ({}, "model.layers", None),
    ],
)  # fmt: skip
def test_the_count_of_a_stack(config, stack, expected):
    assert layer_count(config, stack) == expected


def layers(stack, count):
    return [f"{stack}.{number}.w" for number in range(count)]


def test_only_stacks_with_layers_behind_are_told():
    config = {"text_config": {LAYERS: 4}, "vision_config": {"depth": 2}}
    names = [*layers("model.language_model.layers", 5), *layers("model.visual.blocks", 2)]
    assert counted_layers(config, names) == {"model.language_model.layers": 4}
    names = [*layers("model.language_model.layers", 4), *layers("model.visual.blocks", 3)]
    assert counted_layers(config, names) == {"model.visual.blocks": 2}
    assert counted_layers({LAYERS: 9}, layers("model.layers", 4)) == {}


def test_a_stack_that_another_key_counts_is_left_alone():
    """CogVLM: 32 layers, and a vision tower of 63 under a name that is not known."""
    names = [*layers("model.layers", 4), *layers("model.eye.transformer.layers", 7)]
    assert counted_layers({LAYERS: 4}, names) == {}
    names = [*layers("model.layers", 5), *layers("model.eye.transformer.layers", 7)]
    assert counted_layers({LAYERS: 4}, names) == {"model.layers": 4}
    names = [*layers("one.layers", 5), *layers("two.layers", 7)]
    assert counted_layers({LAYERS: 4}, names) == {}


def test_both_sides_of_an_encoder_and_decoder_have_their_own_count():
    names = [*layers("encoder.block", 3), *layers("decoder.block", 4)]
    config = {"num_layers": 2, "num_decoder_layers": 3}
    assert counted_layers(config, names) == {"encoder.block": 2, "decoder.block": 3}


@pytest.mark.parametrize(
    "config",
    [
        {LAYERS: 4, "num_nextn_predict_layers": 2},
        {LAYERS: 4, "mtp_num_layers": 2},
        {"text_config": {LAYERS: 4, "mtp_num_hidden_layers": 2}},
        {"text_config": {LAYERS: 4}, "num_nextn_predict_layers": 2},
    ],
)
def test_layers_for_further_tokens_are_told_by_config(config):
    assert further_layers(config, "model.layers") == 2
    assert further_layers({LAYERS: 4}, "model.layers") == 0
