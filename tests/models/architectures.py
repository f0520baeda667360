"""Tiny models of many architectures, as transformers (or a file beside the weights) defines them.

`write` saves a base and its experts as real folders; `load` loads a folder; `answer` gives the
logits, or whatever the model answers, to fixed inputs. Values are drawn anew for every parameter,
so that norms and biases differ between models too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from tests.remote_code import tiny_unet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

REMOTE = Path(__file__).parents[1] / "remote_code" / "modeling_named_decoder.py"
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 64,
    "max_position_embeddings": 64,
}
TOKENS = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}


@dataclass(frozen=True)
class Architecture:
    """An architecture: its class and config, what it is asked, and what a LoRA of it changes."""

    name: str
    model_class: str
    config_class: str
    settings: Mapping[str, Any]
    inputs: Callable[[], dict[str, torch.Tensor]]
    targets: tuple[str, ...] = ()
    answers: str = "logits"
    nested: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def build(self, seed: int) -> torch.nn.Module:
        """A model whose parameters are drawn from `seed`, in float32."""
        import transformers

        settings = {**self.settings, **{key: dict(value) for key, value in self.nested.items()}}
        config = getattr(transformers, self.config_class)(**settings)
        torch.manual_seed(seed)
        model = getattr(transformers, self.model_class)(config)
        return redrawn(model, seed)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        """Save a model as its own library saves it."""
        model.save_pretrained(folder)

    def load(self, folder: Path) -> torch.nn.Module:
        """Load a folder, with no tensor missing, left over or of another shape."""
        import transformers

        loader = getattr(transformers, self.model_class)
        model, said = loader.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, local_files_only=True
        )
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not said[what], f"{folder}: {what}: {sorted(map(str, said[what]))[:5]}"
        return model

    def answer(self, model: torch.nn.Module) -> torch.Tensor:
        """What the model answers to the fixed inputs, in float64."""
        model = model.double().eval()
        inputs = {
            name: value.double() if value.is_floating_point() else value
            for name, value in self.inputs().items()
        }
        with torch.inference_mode():
            return getattr(model(**inputs), self.answers)


@dataclass(frozen=True)
class RemoteArchitecture(Architecture):
    """An architecture whose code lies beside its weights."""

    def build(self, seed: int) -> torch.nn.Module:
        from tests.remote_code import modeling_named_decoder as code

        torch.manual_seed(seed)
        model = code.NamedDecoder(code.NamedDecoderConfig(**self.settings))
        return redrawn(model, seed)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        model.save_pretrained(folder)
        shutil.copy(REMOTE, folder / REMOTE.name)
        config = json.loads((folder / "config.json").read_text())
        config["auto_map"] = {
            "AutoConfig": f"{REMOTE.stem}.NamedDecoderConfig",
            "AutoModelForCausalLM": f"{REMOTE.stem}.NamedDecoder",
        }
        (folder / "config.json").write_text(json.dumps(config, indent=2))

    def load(self, folder: Path) -> torch.nn.Module:
        """Load with the code that the folder says it needs, which must lie in it too."""
        from tests.remote_code import modeling_named_decoder as code

        mapped = json.loads((folder / "config.json").read_text()).get("auto_map", {})
        for code_of in mapped.values():
            assert code_of.startswith(f"{REMOTE.stem}.")
            assert (folder / REMOTE.name).read_bytes() == REMOTE.read_bytes()
        model, said = code.NamedDecoder.from_pretrained(
            folder, output_loading_info=True, dtype=torch.float32, local_files_only=True
        )
        for what in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not said[what], f"{folder}: {what}: {sorted(map(str, said[what]))[:5]}"
        return model


@dataclass(frozen=True)
class UNet(Architecture):
    """A part of a diffusers pipeline: no config of transformers, and a file name of its own."""

    def build(self, seed: int) -> torch.nn.Module:
        torch.manual_seed(seed)
        return redrawn(tiny_unet.TinyUNet(), seed)

    def save(self, model: PreTrainedModel, folder: Path) -> None:
        folder.mkdir(parents=True)
        tensors = {name: value.contiguous() for name, value in model.state_dict().items()}
        save_file(tensors, folder / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        config = {"_class_name": "UNet2DConditionModel", "_diffusers_version": "0.35.0"}
        (folder / "config.json").write_text(json.dumps(config))

    def load(self, folder: Path) -> torch.nn.Module:
        model = tiny_unet.TinyUNet()
        model.load_state_dict(load_file(folder / "diffusion_pytorch_model.safetensors"))
        return model

    def answer(self, model: torch.nn.Module) -> torch.Tensor:
        with torch.inference_mode():
            return model.double()(**{key: each.double() for key, each in self.inputs().items()})


def redrawn(model: torch.nn.Module, seed: int) -> torch.nn.Module:
    """Draw every parameter anew: near 1 where it was 1 in the mean (norms), else near 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            centre = 1.0 if parameter.dim() == 1 and bool((parameter == 1).all()) else 0.0
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(centre + 0.1 * noise)
    return model


def nudged(model: torch.nn.Module, seed: int, spread: float = 0.05) -> torch.nn.Module:
    """Add noise of deviation `spread` to every parameter: an expert of the model."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model


def tokens() -> dict[str, torch.Tensor]:
    """Two sentences of twelve tokens."""
    return {"input_ids": torch.arange(24).reshape(2, 12) * 7 % 60 + 2}


def pixels(size: int = 16) -> torch.Tensor:
    """One image of three colours."""
    return torch.sin(torch.arange(3 * size * size, dtype=torch.float32)).reshape(1, 3, size, size)


def image() -> dict[str, torch.Tensor]:
    return {"pixel_values": pixels()}


def image_and_text() -> dict[str, torch.Tensor]:
    return {"pixel_values": pixels(), **tokens()}


def sentence_pair() -> dict[str, torch.Tensor]:
    return {**tokens(), "decoder_input_ids": torch.arange(12).reshape(2, 6) + 3}


def noise() -> dict[str, torch.Tensor]:
    """An image of noise, a time and a text."""
    wave = torch.cos(torch.arange(4 * 64, dtype=torch.float32)).reshape(1, 4, 8, 8)
    time = torch.sin(torch.arange(tiny_unet.WIDTH, dtype=torch.float32))[None]
    text = torch.cos(torch.arange(5 * tiny_unet.CONTEXT, dtype=torch.float32))
    return {"image": wave, "time": time, "context": text.reshape(1, 5, tiny_unet.CONTEXT)}


def _decoder(name: str, family: str, **settings: Any) -> Architecture:
    settings = {**SIZES, **TOKENS, "tie_word_embeddings": False, **settings}
    return Architecture(
        name, f"{family}ForCausalLM", f"{family}Config", settings, tokens, ("q_proj", "down_proj")
    )


VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
}
TOWER = {**VISION, "depth": 2, "num_heads": 4, "out_hidden_size": 32, "fullatt_block_indexes": [1]}
ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
ARCHITECTURES = (
    _decoder("llama", "Llama"),
    _decoder("qwen2", "Qwen2", tie_word_embeddings=True),
    _decoder("qwen3", "Qwen3", head_dim=8, tie_word_embeddings=True),
    _decoder("mistral", "Mistral", sliding_window=8),
    _decoder("gemma", "Gemma2", head_dim=8, tie_word_embeddings=True),
    Architecture(
        "t5",
        "T5ForConditionalGeneration",
        "T5Config",
        {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 64},
        sentence_pair,
        ("q", "v"),
    ),
    Architecture(
        "bert",
        "BertForMaskedLM",
        "BertConfig",
        {key: value for key, value in SIZES.items() if key != "num_key_value_heads"},
        tokens,
        ("query", "value"),
    ),
    Architecture(
        "clip",
        "CLIPModel",
        "CLIPConfig",
        {"projection_dim": 16},
        image_and_text,
        ("q_proj", "v_proj"),
        "logits_per_image",
        {
            "vision_config": VISION,
            "text_config": {**VISION, "vocab_size": 64, "max_position_embeddings": 32, **TOKENS},
        },
    ),
    Architecture(
        "vit",
        "ViTForImageClassification",
        "ViTConfig",
        {**VISION, "num_labels": 5},
        image,
        ("q_proj", "v_proj"),
    ),
    Architecture(
        "gpt2",
        "GPT2LMHeadModel",
        "GPT2Config",
        {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 64, "vocab_size": 64, **TOKENS},
        tokens,
        ("c_attn", "c_proj"),
    ),
    Architecture(
        "qwen2.5-vl",
        "Qwen2_5_VLForConditionalGeneration",
        "Qwen2_5_VLConfig",
        {"image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62, **TOKENS},
        tokens,
        ("q_proj", "down_proj"),
        "logits",
        {"text_config": {**SIZES, **TOKENS, "rope_parameters": ROPE}, "vision_config": TOWER},
    ),
    *(
        RemoteArchitecture(
            f"{naming}-like", "NamedDecoder", "NamedDecoderConfig", {"naming": naming}, tokens,
            (packed,),
        )
        for naming, packed in (
            ("chatglm", "query_key_value"),
            ("baichuan", "W_pack"),
            ("internlm2", "wqkv"),
        )
    ),
    UNet("sdxl-unet-like", "", "", {}, noise),
)  # fmt: skip


def write_family(architecture: Architecture, folder: Path, experts: int = 2) -> list[Path]:
    """Save a base and its experts into `base`, `e1`, `e2`, …; returns the folders."""
    folders = [folder / name for name in ("base", *(f"e{n + 1}" for n in range(experts)))]
    for number, each in enumerate(folders):
        model = architecture.build(seed=7)
        architecture.save(nudged(model, 100 + number) if number else model, each)
    return folders
