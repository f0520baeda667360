"""Layers, depths and positions, told from names of several families."""

import random

import pytest

from merge_ops.checkpoints.names.depth import (
    Position,
    depths,
    in_order,
    layer_of,
    layers_of,
    positions,
)

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


# ------------------------------------------------------------------------- stacks of other families

SEVERAL = {
    "bert.encoder.layer.{}.attention.self.query.weight": "bert.encoder.layer",
    "vit.encoder.layer.{}.output.dense.weight": "vit.encoder.layer",
    "visual.transformer.resblocks.{}.mlp.c_fc.weight": "visual.transformer.resblocks",
    "transformer.resblocks.{}.attn.in_proj_weight": "transformer.resblocks",
    "backbone.layers.{}.mixer.in_proj.weight": "backbone.layers",
    "rwkv.blocks.{}.att.key.weight": "rwkv.blocks",
    "transformer.blocks.{}.attn.Wqkv.weight": "transformer.blocks",
    "transformer.h.{}.self_attention.query_key_value.weight": "transformer.h",
    "model.decoder.layers.{}.encoder_attn.k_proj.weight": "model.decoder.layers",
    # A stage of Swin or ConvNeXt is the layer; blocks in it are counted anew in each stage.
    "swin.encoder.layers.{}.blocks.1.attention.output.dense.weight": "swin.encoder.layers",
    "convnext.encoder.stages.{}.layers.2.dwconv.weight": "convnext.encoder.stages",
    "blocks.{}.attn.qkv.weight": "blocks",
    "joint_blocks.{}.x_block.attn.qkv.weight": "joint_blocks",
    "double_blocks.{}.img_attn.qkv.weight": "double_blocks",
    "single_transformer_blocks.{}.proj_mlp.weight": "single_transformer_blocks",
    "down_blocks.{}.attentions.1.transformer_blocks.0.attn1.to_q.weight": "down_blocks",
    "model.diffusion_model.output_blocks.{}.1.transformer_blocks.9.ff.net.2.weight":
        "model.diffusion_model.output_blocks",
}  # fmt: skip


@pytest.mark.parametrize("name", SEVERAL)
def test_depth_runs_over_the_outer_stack_of_every_family(name: str) -> None:
    assert layer_of(name.format(7)) == (SEVERAL[name], 7)
    found = depths(name.format(number) for number in range(3))
    assert [found[name.format(number)] for number in range(3)] == [0.0, 0.5, 1.0]


def chain(*parts: tuple[str, int | None]) -> list[str]:
    return [
        f"{stack}.{number}.x.w" if number is not None else f"{stack}.resnets.0.w"
        for stack, count in parts
        for number in (range(count) if count is not None else [None])
    ]


@pytest.mark.parametrize(
    "names",
    [
        chain(("down_blocks", 4), ("mid_block", None), ("up_blocks", 4)),
        chain(
            ("model.diffusion_model.input_blocks", 12),
            ("model.diffusion_model.middle_block", None),
            ("model.diffusion_model.output_blocks", 12),
        ),
        chain(("transformer_blocks", 3), ("single_transformer_blocks", 6)),
        chain(("double_blocks", 19), ("single_blocks", 38)),
        chain(("encoder.down", 4), ("encoder.mid", None)),
    ],
)
def test_depth_runs_from_the_input_to_the_output_over_stacks_that_follow_one_another(
    names: list[str],
) -> None:
    expected = [number / (len(names) - 1) for number in range(len(names))]
    assert [depths(reversed(names))[name] for name in names] == expected
    assert list(in_order(reversed(names))) == names


def test_a_decoder_of_images_runs_from_its_last_number_to_its_first() -> None:
    names = ["vae.decoder.mid.block_1.w", *(f"vae.decoder.up.{n}.block.0.w" for n in (2, 1, 0))]
    assert list(depths(names).values()) == [0.0, 1 / 3, 2 / 3, 1.0]


def test_stacks_of_two_networks_in_one_file_are_apart() -> None:
    unet = chain(("unet.down_blocks", 2), ("unet.up_blocks", 1))
    text = [f"text_encoder.text_model.encoder.layers.{n}.w" for n in range(3)]
    found = depths([*unet, *text])
    assert [found[name] for name in (*unet, *text)] == [0.0, 0.5, 1.0, 0.0, 0.5, 1.0]


def test_layers_behind_the_counted_ones_have_the_last_depth() -> None:
    names = [f"model.layers.{n}.w" for n in range(6)]
    found = depths(names, {"model.layers": 4})
    assert list(found.values()) == [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0]
    assert depths(names[:2], {"model.layers": 1})["model.layers.1.w"] == 1.0


@pytest.mark.parametrize(
    "name",
    ["mtp.fc.weight", "mtp.layers.0.mlp.w", "model.mtp_layers.0.norm.w", "model.mtp_block.0.w"],
)
def test_a_part_for_multi_token_prediction_has_the_last_depth(name: str) -> None:
    names = [name, "model.layers.0.w", "model.layers.1.w"]
    assert list(depths(names).values()) == [1.0, 0.0, 1.0]
