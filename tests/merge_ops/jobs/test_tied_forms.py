"""Merges of tied models, whichever names of a tied tensor each of them stores, by transformers.

Each form is a real class of transformers. A model is stored as transformers saves it (every tied
tensor once) or as converted pickles and other tools do (under all names). Two laws hold for each:
task arithmetic of one expert with weight 1 gives the expert back, and the average of two models has
the average of their parameters, in float64.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from tests.merges.merging import merge_in_process

SMALL = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
         "num_attention_heads": 4}  # fmt: skip
CODERS = {"vocab_size": 64, "d_model": 32, "encoder_layers": 2, "decoder_layers": 2,
          "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
          "decoder_ffn_dim": 48, "max_position_embeddings": 32, "pad_token_id": 1,
          "bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}  # fmt: skip
T5 = {"vocab_size": 64, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4,
      "decoder_start_token_id": 0}  # fmt: skip
BERT = {**SMALL, "max_position_embeddings": 32}
GEMMA = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
WHISPER = {"vocab_size": 64, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
           "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 48,
           "decoder_ffn_dim": 48, "num_mel_bins": 8, "max_source_positions": 16,
           "max_target_positions": 16, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2,
           "decoder_start_token_id": 2}  # fmt: skip
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "patch_size": 4,
          "num_attention_heads": 2, "image_size": 16}  # fmt: skip
# name: (class, its config class, sizes, the head)
FORMS: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "t5": ("T5ForConditionalGeneration", "T5Config", T5, "lm_head.weight"),
    "t5-1.1": (
        "T5ForConditionalGeneration",
        "T5Config",
        {**T5, "tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"},
        "lm_head.weight",
    ),
    "bart": ("BartForConditionalGeneration", "BartConfig", CODERS, "lm_head.weight"),
    "mbart": ("MBartForConditionalGeneration", "MBartConfig", CODERS, "lm_head.weight"),
    "marian": ("MarianMTModel", "MarianConfig", CODERS, "lm_head.weight"),
    "bert": ("BertForMaskedLM", "BertConfig", BERT, "cls.predictions.decoder.weight"),
    "roberta": ("RobertaForMaskedLM", "RobertaConfig", BERT, "lm_head.decoder.weight"),
    "albert": (
        "AlbertForMaskedLM",
        "AlbertConfig",
        {**BERT, "embedding_size": 16},
        "predictions.decoder.weight",
    ),
    "electra": ("ElectraForMaskedLM", "ElectraConfig", BERT, "generator_lm_head.weight"),
    "gpt2": (
        "GPT2LMHeadModel",
        "GPT2Config",
        {"vocab_size": 64, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32,
         "bos_token_id": 0, "eos_token_id": 1},
        "lm_head.weight",
    ),
    "gemma2": ("Gemma2ForCausalLM", "Gemma2Config", GEMMA, "lm_head.weight"),
    "bloom": (
        "BloomForCausalLM",
        "BloomConfig",
        {"vocab_size": 64, "hidden_size": 32, "n_layer": 2, "n_head": 4},
        "lm_head.weight",
    ),
    "gemma3": (
        "Gemma3ForConditionalGeneration",
        "Gemma3Config",
        {"text_config": {**GEMMA, "sliding_window": 16, "pad_token_id": 0},
         "vision_config": VISION, "mm_tokens_per_image": 4, "image_token_index": 63},
        "lm_head.weight",
    ),
    "llava": (
        "LlavaForConditionalGeneration",
        "LlavaConfig",
        {"text_config": {"model_type": "llama", **SMALL, "tie_word_embeddings": True},
         "vision_config": {"model_type": "siglip_vision_model", **VISION},
         "image_token_index": 63, "tie_word_embeddings": True},
        "language_model.lm_head.weight",
    ),
    "qwen2-vl": (
        "Qwen2VLForConditionalGeneration",
        "Qwen2VLConfig",
        {"text_config": {**GEMMA, "tie_word_embeddings": True,
                         "rope_parameters": {"rope_type": "default", "rope_theta": 1e4,
                                             "mrope_section": [2, 1, 1]}},
         "vision_config": {"embed_dim": 16, "hidden_size": 32, "depth": 1, "num_heads": 2,
                           "patch_size": 4},
         "image_token_id": 60, "video_token_id": 61, "vision_start_token_id": 62,
         "vision_end_token_id": 63, "tie_word_embeddings": True},
        "lm_head.weight",
    ),
    "whisper": ("WhisperForConditionalGeneration", "WhisperConfig", WHISPER, "proj_out.weight"),
}  # fmt: skip
ONE = """
merge_method: task_arithmetic
base_model: base
models: [{model: e1, parameters: {weight: 1.0}}]
"""
AVERAGE = """
merge_method: linear
models:
  - {model: base, parameters: {weight: 0.5}}
  - {model: e1, parameters: {weight: 0.5}}
"""


@dataclass
class Form:
    """One architecture: its models are written and loaded by transformers alone.

    What several tests ask for is made once: the models `base` and `e1`, each stored in three ways
    (every tied tensor once, under all names, with a head of its own), and what is loaded of them.
    """

    root: Path
    model_class: Any
    config: Any
    head: str
    models: dict[str, Any] = field(default_factory=dict)
    loaded: dict[Path, Any] = field(default_factory=dict)

    def model(self, name: str) -> Any:
        if name not in self.models:
            torch.manual_seed(("base", "e1").index(name))
            model = self.model_class(self.config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.05 * torch.randn(parameter.shape))
            self.models[name] = model
        return self.models[name]

    def stored(self, name: str, how: str) -> Path:
        """`how` is `once`, `every name`, or `own head`."""
        folder = self.root / f"{name}, {how}"
        if not folder.exists():
            head = head_of(self.model(name))
            own = {self.head: head + 0.1 * torch.randn(head.shape)} if how == "own head" else {}
            self.store(folder, self.model(name), how != "once", own)
        return folder

    def store(
        self, folder: Path, model: Any, every_name: bool, changed: dict[str, torch.Tensor]
    ) -> None:
        """`changed` tensors replace those of the same name."""
        model.save_pretrained(folder)
        if every_name:
            tensors = {key: value.clone() for key, value in model.state_dict().items()}
            if hasattr(self.config, "text_config"):  # saved under other names than it has in memory
                tensors = load_file(folder / "model.safetensors")
                tensors[self.head] = head_of(model)
            for recomputed in model._keys_to_ignore_on_save or ():
                tensors.pop(recomputed, None)
            save_file(tensors | changed, folder / "model.safetensors", {"format": "pt"})

    def load(self, folder: Path) -> Any:
        model, info = self.model_class.from_pretrained(folder, output_loading_info=True)
        assert not info["missing_keys"], info
        assert not info["unexpected_keys"], info
        return model.eval()

    def input(self, folder: Path) -> Any:
        """A stored model as transformers loads it."""
        if folder not in self.loaded:
            self.loaded[folder] = self.load(folder)
        return self.loaded[folder]

    def merge(self, text: str, folders: Sequence[Path], out: Path) -> Path:
        """Merge a base and an expert by one of the recipes above into `out`."""
        config = out.with_suffix(".yaml")
        for name, folder in zip(("base", "e1"), folders, strict=True):
            text = text.replace(f"model: {name}", f"model: '{folder}'")
        config.write_text(text)
        return merge_in_process(config, out)

    def logits(self, model: Any) -> torch.Tensor:
        tokens = torch.arange(3, 11).unsqueeze(0)
        inputs: dict[str, torch.Tensor] = {"input_ids": tokens}
        if self.head == "proj_out.weight":
            sounds = torch.linspace(-1, 1, 8 * 32).view(1, 8, 32)
            inputs = {"input_features": sounds, "decoder_input_ids": tokens}
        elif model.config.is_encoder_decoder:
            inputs["decoder_input_ids"] = tokens.flip(1)
        with torch.inference_mode():
            return model(**inputs).logits


def head_of(model: Any) -> torch.Tensor:
    return model.get_output_embeddings().weight.detach().clone()


@pytest.fixture(scope="module", params=FORMS)
def form(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Form:
    return form_of(request.param, tmp_path_factory.mktemp(request.param))


def form_of(name: str, root: Path) -> Form:
    model_class, config_class, sizes, head = FORMS[name]
    config = getattr(transformers, config_class)(**sizes)
    return Form(root, getattr(transformers, model_class), config, head)


def assert_average(form: Form, out: Path, *folders: Path) -> None:
    merged = form.load(out).state_dict()
    sides = [form.input(folder).state_dict() for folder in folders]
    for name, value in merged.items():
        expected = sum(side[name].double() for side in sides) / len(sides)
        torch.testing.assert_close(value.double(), expected, rtol=1e-6, atol=1e-7, msg=name)


def stored(form: Form, how: str, of: str) -> list[Path]:
    """The two models, those that `of` names stored in that way and the other one once."""
    return [form.stored(each, how if of in (each, "both") else "once") for each in ("base", "e1")]


@pytest.mark.parametrize("every_name", ["base", "e1", "both"])
def test_one_expert_comes_back(form: Form, every_name: str, tmp_path: Path) -> None:
    folders = stored(form, "every name", every_name)
    out = form.merge(ONE, folders, tmp_path / "out")
    theirs, ours = form.logits(form.input(folders[1])), form.logits(form.load(out))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)
    names = load_file(form.stored("base", "once") / "model.safetensors").keys()
    assert load_file(out / "model.safetensors").keys() == names  # nothing is written twice


@pytest.mark.parametrize("every_name", ["base", "e1"])
def test_the_average_is_that_of_the_parameters(form: Form, every_name: str, tmp_path: Path) -> None:
    folders = stored(form, "every name", every_name)
    assert_average(form, form.merge(AVERAGE, folders, tmp_path / "out"), *folders)


@pytest.mark.parametrize("own", ["base", "e1", "both"])
def test_a_head_of_its_own_is_merged_whoever_has_it(form: Form, own: str, tmp_path: Path) -> None:
    """transformers 5 loads such a head untied, and so it does the merge's."""
    folders = stored(form, "own head", own)
    out = form.merge(AVERAGE, folders, tmp_path / "average")
    assert form.head in load_file(out / "model.safetensors")
    assert_average(form, out, *folders)
    ours = form.logits(form.load(form.merge(ONE, folders, tmp_path / "one")))
    theirs = form.logits(form.input(folders[1]))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=2e-5)


def test_a_written_head_unties_the_config(tmp_path: Path) -> None:
    """Of a class that ties by default, with a config that says nothing, as Gemma's do."""
    form = form_of("gemma2", tmp_path)
    model = form.model("base")
    folders = [tmp_path / "base", tmp_path / "e1"]
    form.store(folders[0], model, False, {})
    form.store(folders[1], model, True, {"lm_head.weight": head_of(model) + 1})
    for folder in folders:
        path = folder / "config.json"
        said = json.loads(path.read_text())
        said.pop("tie_word_embeddings", None)
        path.write_text(json.dumps(said))
    out = form.merge(AVERAGE, folders, tmp_path / "out")
    assert json.loads((out / "config.json").read_text())["tie_word_embeddings"] is False
    assert_average(form, out, *folders)
