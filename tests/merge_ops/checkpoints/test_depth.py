"""Layers, depths and positions, told from names of several families."""

import random

import pytest

from merge_ops.checkpoints.depth import Position, depths, in_order, layer_of, layers_of, positions

QWEN = [
    "model.embed_tokens.weight",
    "model.layers.0.input_layernorm.weight",
    "model.layers.0.mlp.up_proj.weight",
    "model.layers.2.mlp.up_proj.weight",
    "model.layers.10.mlp.up_proj.weight",
    "model.norm.weight",
    "lm_head.weight",
]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.3.mlp.up_proj.weight", ("model.layers", 3)),
        ("layer.12.output.dense.bias", ("layer", 12)),
        ("transformer.h.0.attn.c_attn.weight", ("transformer.h", 0)),
        ("transformer.encoder.layers.27.mlp.weight", ("transformer.encoder.layers", 27)),
        ("visual.blocks.5.attn.proj.weight", ("visual.blocks", 5)),
        ("block.1.w", ("block", 1)),
        ("encoder.2.w", ("encoder", 2)),
        ("decoder.2.w", ("decoder", 2)),
        # The first stack counts: a moe_expert inside a layer is no layer.
        ("model.layers.1.mlp.experts.7.up_proj.weight", ("model.layers", 1)),
        ("model.layers.1.layers.4.w", ("model.layers", 1)),
        # No stack: the number is missing, not between dots, or the word is part of another.
        ("model.norm.weight", None),
        ("model.layers.weight", None),
        ("model.layers.3", None),
        ("mylayers.3.w", None),
        ("model.arch.3.w", None),
    ],
)
def test_the_layer_of_a_name(name: str, place: tuple[str, int] | None) -> None:
    assert layer_of(name) == place


def test_stacks_have_as_many_layers_as_their_last_number_says() -> None:
    names = ["a.layers.0.w", "a.layers.3.w", "a.layers.1.w", "b.blocks.0.w", "norm.weight"]
    assert layers_of(names) == {"a.layers": 4, "b.blocks": 1}
    assert layers_of(["norm.weight"]) == {}


def test_depth_runs_from_nought_to_one_within_a_stack() -> None:
    names = ["a.layers.0.w", "a.layers.1.w", "a.layers.4.w", "b.blocks.0.w", "lm_head.weight"]
    assert depths(names) == {
        "a.layers.0.w": 0.0,
        "a.layers.1.w": 0.25,
        "a.layers.4.w": 1.0,
        "b.blocks.0.w": 1.0,
        "lm_head.weight": 0.0,
    }


def test_order_is_from_input_to_output() -> None:
    shuffled = QWEN.copy()
    random.Random(0).shuffle(shuffled)
    assert list(in_order(shuffled)) == QWEN
    gpt = ["wte.weight", "wpe.weight", "h.0.ln_1.weight", "ln_f.weight", "score.weight"]
    assert in_order(gpt[::-1]) == ("wpe.weight", "wte.weight", *gpt[2:])
    # `embed_out` is an output head.
    assert in_order(["embed_out.weight", "layers.0.w"]) == ("layers.0.w", "embed_out.weight")


def test_positions_count_all_tensors_and_those_of_the_kind() -> None:
    found = positions(QWEN[::-1])
    assert list(found) == QWEN
    assert [place.position for place in found.values()] == list(range(7))
    assert found["model.norm.weight"] == Position(
        "model.norm.weight", 0.0, False, 5, 7, position_in_kind=1, count_of_kind=3
    )
    assert found["model.layers.2.mlp.up_proj.weight"] == Position(
        "model.layers.2.mlp.up_proj.weight", 0.2, True, 3, 7, position_in_kind=2, count_of_kind=4
    )
