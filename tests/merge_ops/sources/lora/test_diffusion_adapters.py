"""Adapters of image models by their files: values by hand, and what is refused by name.

tests/oracle compares whole pipelines with diffusers, which gives all modules of an adapter one
alpha; kohya's files have one for each, which is looked at here.
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.sources.lora.adapters import open_adapter
from merge_ops.sources.lora.unet_names import clip_names, diffusers_name, original_names
from tests.merges.merging import merge_in_process
from tests.models import image_models

LINEAR = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "model.diffusion_model.input_blocks.4.0.in_layers.2"
POINT = "model.diffusion_model.input_blocks.4.1.proj_in"
PACKED = "conditioner.embedders.1.model.transformer.resblocks.0.attn.in_proj_weight"
BASE = {
    f"{LINEAR}.weight": torch.randn(6, 5, generator=torch.Generator().manual_seed(1)),
    f"{CONVOLUTION}.weight": torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(2)),
    f"{POINT}.weight": torch.randn(4, 3, 1, 1, generator=torch.Generator().manual_seed(3)),
    PACKED: torch.randn(12, 4, generator=torch.Generator().manual_seed(4)),
}
AT = "lora_unet_input_blocks_4"


def factors(module: str, shape: tuple[int, ...], alpha: float | None, rank: int) -> dict:
    return image_models.adapter_of(
        {module: shape}, len(module), ("lora_down", "lora_up"), alpha, rank
    )


def change(adapter: dict, module: str) -> torch.Tensor:
    """alpha / r · up @ down in float64, as a matrix."""
    down = adapter[f"{module}.lora_down.weight"].double().flatten(1)
    up = adapter[f"{module}.lora_up.weight"].double().flatten(1)
    alpha = adapter.get(f"{module}.alpha", torch.tensor(float(len(down))))
    return float(alpha) / len(down) * (up @ down)


def opened(tmp_path: Path, adapter: dict, base: dict = BASE) -> Checkpoint:
    model = image_models.write(tmp_path / "base.safetensors", base)
    file = image_models.write(tmp_path / "style.safetensors", adapter)
    return open_adapter(
        "style",
        open_checkpoint("base", FolderSource(model.parent, model.name)),
        FolderSource(file.parent, file.name),
    )


def test_each_module_has_its_own_rank_and_alpha(tmp_path: Path) -> None:
    shapes = {
        f"{AT}_1_transformer_blocks_0_attn1_to_q": (6, 5),
        f"{AT}_0_in_layers_2": (4, 3, 3, 3),
        f"{AT}_1_proj_in": (4, 3),  # a linear change of a convolution of one element
        "lora_te2_text_model_encoder_layers_0_self_attn_k_proj": (4, 4),
        "lora_te2_text_model_encoder_layers_0_self_attn_v_proj": (4, 4),
    }
    adapter: dict = {}
    for number, (module, shape) in enumerate(shapes.items()):
        adapter |= factors(module, shape, (3.0, 0.5, None, 2.0, 1.0)[number], 1 + number)
    image_models.write(tmp_path / "base.safetensors", BASE)
    image_models.write(tmp_path / "style.safetensors", adapter)
    recipe = tmp_path / "recipe.yaml"
    model = f"{tmp_path / 'base.safetensors'}+{tmp_path / 'style.safetensors'}"
    recipe.write_text(
        f"merge_method: linear\nmodels: [{{model: {model}, parameters: {{weight: 1}}}}]"
    )
    out = merge_in_process(recipe, tmp_path / "out")
    (file,) = out.glob("*.safetensors")
    merged = load_file(file)
    linear, convolution, point, key, value = (change(adapter, module) for module in shapes)
    rows = torch.cat([torch.zeros(4, 4, dtype=torch.float64), key, value])
    for name, expected in (
        (f"{LINEAR}.weight", linear),
        (f"{CONVOLUTION}.weight", convolution.reshape(4, 3, 3, 3)),
        (f"{POINT}.weight", point.reshape(4, 3, 1, 1)),
        (PACKED, rows),
    ):
        wanted = BASE[name].double() + expected
        assert torch.allclose(merged[name].double(), wanted, rtol=1e-6, atol=1e-6), name


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("hada_w1_a", "LoHa"),
        ("lokr_w1", "LoKr"),
        ("dora_scale", "DoRA"),
        ("lora_mid.weight", "Tucker"),
        ("oft_blocks", "OFT"),
    ],
)
def test_what_is_no_lora_is_refused_by_its_kind(tmp_path: Path, key: str, kind: str) -> None:
    module = f"{AT}_1_transformer_blocks_0_attn1_to_q"
    adapter = {**factors(module, (6, 5), 1.0, 2), f"{module}.{key}": torch.ones(2, 2)}
    with pytest.raises(CompatibilityError, match=f"belongs to .*{kind}.* cannot be merged"):
        opened(tmp_path, adapter)


def test_a_change_of_another_shape_is_refused(tmp_path: Path) -> None:
    adapter = factors(f"{AT}_1_transformer_blocks_0_attn1_to_q", (6, 7), 1.0, 2)
    with pytest.raises(CompatibilityError, match=r"makes a change of \[6, 7\], but .* \[6, 5\]"):
        opened(tmp_path, adapter)


def test_an_adapter_of_another_checkpoint_is_refused_in_one_sentence(tmp_path: Path) -> None:
    adapter: dict = {}
    for block in range(5):
        adapter |= factors(f"lora_unet_single_blocks_{block}_linear1", (4, 4), 1.0, 2)
    with pytest.raises(CompatibilityError, match="and 4 more modules are changed, which"):
        opened(tmp_path, adapter)


def test_a_factor_without_its_partner_is_refused(tmp_path: Path) -> None:
    module = f"{AT}_1_transformer_blocks_0_attn1_to_q"
    adapter = factors(module, (6, 5), 1.0, 2)
    del adapter[f"{module}.lora_up.weight"]
    with pytest.raises(CompatibilityError, match="has no up factor"):
        opened(tmp_path, adapter)


def test_one_weight_changed_under_two_names_is_refused(tmp_path: Path) -> None:
    other = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q"
    one = f"{AT}_1_transformer_blocks_0_attn1_to_q"
    adapter = {**factors(one, (6, 5), 1.0, 2), **factors(other, (6, 5), 1.0, 2)}
    with pytest.raises(CompatibilityError, match="changes the same weight as"):
        opened(tmp_path, adapter)


def test_an_alpha_that_is_no_number_is_refused(tmp_path: Path) -> None:
    module = f"{AT}_1_transformer_blocks_0_attn1_to_q"
    for alpha in (torch.tensor(float("nan")), torch.ones(2)):
        adapter = {**factors(module, (6, 5), None, 2), f"{module}.alpha": alpha}
        with pytest.raises(CompatibilityError, match="a finite number is expected"):
            opened(tmp_path, adapter)


def test_parts_that_the_base_does_not_hold_are_told(tmp_path: Path) -> None:
    unet = {name: value for name, value in BASE.items() if "diffusion_model" in name}
    adapter = {
        **factors(f"{AT}_1_transformer_blocks_0_attn1_to_q", (6, 5), 1.0, 2),
        **factors("lora_te1_text_model_encoder_layers_0_mlp_fc1", (4, 4), 1.0, 2),
    }
    found = opened(tmp_path, adapter, unet)
    assert [str(each) for each in found.cautions] == [
        "style changes 1 modules of te1 too, which base does not hold; they are left out. Merge the"
        " adapter into the folders of these parts as well"
    ]
    assert set(found.overlays) == {f"{LINEAR}.weight"}


def test_names_of_both_libraries_lead_to_one_another() -> None:
    pairs = {
        "input_blocks.0.0": "conv_in",
        "input_blocks.1.0.emb_layers.1": "down_blocks.0.resnets.0.time_emb_proj",
        "input_blocks.3.0.op": "down_blocks.0.downsamplers.0.conv",
        "input_blocks.8.1.proj_out": "down_blocks.2.attentions.1.proj_out",
        "middle_block.2.out_layers.3": "mid_block.resnets.1.conv2",
        "output_blocks.2.2.conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks.2.1.conv": "up_blocks.0.upsamplers.0.conv",
        "output_blocks.8.0.skip_connection": "up_blocks.2.resnets.2.conv_shortcut",
        "time_embed.2": "time_embedding.linear_2",
    }
    for ours, theirs in pairs.items():
        assert diffusers_name(ours) == theirs
        assert ours in list(original_names(theirs))
    assert diffusers_name("double_blocks.0.img_attn.qkv") is None
    assert list(original_names("transformer_blocks.0.attn.to_q")) == []
    assert [name for name, _ in clip_names("transformer.resblocks.7.attn.in_proj")] == [
        f"text_model.encoder.layers.7.self_attn.{part}" for part in ("q_proj", "k_proj", "v_proj")
    ]
