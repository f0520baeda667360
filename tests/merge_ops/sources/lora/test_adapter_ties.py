"""An embedding that an adapter saves whole leaves what was tied to it as it was, as in PEFT."""

from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.sources.lora.adapters import open_adapter
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, write_adapter

T5 = {"model_type": "t5", "is_encoder_decoder": True}
CODERS = ["decoder.embed_tokens.weight", "encoder.embed_tokens.weight"]
# name: (config, the embedding saved whole, what keeps the old values)
FORMS = {
    "t5": (T5, "shared.weight", [*CODERS, "lm_head.weight"]),
    "t5-encoder": ({**T5, "architectures": ["T5EncoderModel"]}, "shared.weight", CODERS),
    "implied": ({"model_type": "gemma2"}, "model.embed_tokens.weight", ["lm_head.weight"]),
    "nested": (
        {"model_type": "llava", "text_config": {"tie_word_embeddings": True}},
        "language_model.model.embed_tokens.weight",
        ["language_model.lm_head.weight"],
    ),
    "bert": (
        {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
        "bert.embeddings.word_embeddings.weight",
        ["cls.predictions.decoder.weight"],
    ),
    "headless": (
        {"tie_word_embeddings": True, "architectures": ["Qwen2Model"]},
        "embed_tokens.weight",
        [],
    ),
    "untied": ({"model_type": "llama"}, "model.embed_tokens.weight", []),
}


def opened(folder: Path, config: dict, whole: str, **stored: torch.Tensor):
    base = folder / "base"
    base.mkdir()
    factory.write_json(base / "config.json", config)
    factory.write_weights(base, {whole: torch.zeros(8, 4), "other.weight": torch.ones(3), **stored})
    module = whole.removesuffix(".weight")
    adapter = write_adapter(
        folder / "a", {PREFIX + whole: torch.ones(8, 4)}, modules_to_save=[module]
    )
    below = open_checkpoint("base", FolderSource(base))
    return open_adapter("base+a", below, FolderSource(adapter))


@pytest.mark.parametrize("form", FORMS)
def test_what_was_tied_keeps_its_values(tmp_path: Path, form: str) -> None:
    config, whole, keep = FORMS[form]
    checkpoint = opened(tmp_path, config, whole)
    assert sorted(checkpoint.tensors) == sorted([whole, "other.weight", *keep])
    assert checkpoint.overlays[whole].checkpoint is checkpoint.made_of[1]
    assert {checkpoint.overlays[name].name for name in keep} <= {whole}
    assert all(checkpoint.overlays[name].checkpoint is checkpoint.made_of[0] for name in keep)


@pytest.mark.parametrize("form", ["t5", "implied"])
def test_stored_copies_keep_their_values_too(tmp_path: Path, form: str) -> None:
    config, whole, keep = FORMS[form]
    copies = {name: torch.zeros(8, 4) for name in keep}
    checkpoint = opened(tmp_path, config, whole, **copies)
    assert checkpoint.copies == {}
    assert all(checkpoint.overlays[name].checkpoint is checkpoint.made_of[0] for name in keep)
