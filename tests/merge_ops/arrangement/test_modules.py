"""Which tensor belongs to which part of a model, by the names that checkpoints use."""

import pytest

from merge_ops.arrangement.modules import in_module

LANGUAGE = "model.language_model.layers.0.mlp.up_proj.weight"
HEAD = "lm_head.weight"
VISION = "model.visual.blocks.3.attn.qkv.weight"
TOWER = "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight"
PROJECTOR = "multi_modal_projector.linear_1.weight"
MERGER = "model.visual.merger.mlp.0.weight"
AUDIO = "audio_tower.layers.0.fc1.weight"
ENCODER = "model.encoder.layers.0.fc1.weight"
DECODER = "model.decoder.layers.0.fc1.weight"
SHARED = "model.shared.weight"
ALL = (LANGUAGE, HEAD, VISION, TOWER, PROJECTOR, MERGER, AUDIO, ENCODER, DECODER, SHARED)


@pytest.mark.parametrize(
    ("module", "members"),
    [
        ("default", ALL),
        ("text_decoder", (LANGUAGE, HEAD, ENCODER, DECODER, SHARED)),
        ("language_model", (LANGUAGE, HEAD, ENCODER, DECODER, SHARED)),
        ("vision_tower", (VISION, TOWER)),
        ("vision_model", (VISION, TOWER)),
        # A projector inside the vision tower is a projector.
        ("multi_modal_projector", (PROJECTOR, MERGER)),
        ("audio_tower", (AUDIO,)),
        ("encoder", (TOWER, ENCODER)),
        ("decoder", (DECODER,)),
        ("shared", (LANGUAGE, HEAD, VISION, PROJECTOR, MERGER, AUDIO, SHARED)),
        # Any other name is the beginning of a tensor's, up to a dot.
        ("model.visual", (VISION, MERGER)),
        ("model.visual.", (VISION, MERGER)),
        ("model.vis", ()),
        ("lm_head", (HEAD,)),
        (HEAD, (HEAD,)),
        ("visual", ()),
    ],
)
def test_the_tensors_of_a_module(module: str, members: tuple[str, ...]) -> None:
    assert tuple(tensor for tensor in ALL if in_module(module, tensor)) == members
