"""What a model must hold: transformers says so in a child process."""

import json
import re

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from merge_ops.plans.agreement.expected_tensors import LoadingChild

TINY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 64,
}
PICTURES = {key: TINY[key] for key in TINY if key != "vocab_size"}
PICTURES |= {"image_size": 16, "patch_size": 8}
GQA = {**TINY, "num_key_value_heads": 2, "head_dim": 8}
MOE = {**GQA, "moe_intermediate_size": 16, "num_experts_per_tok": 2}
MODELS = {
    "LlamaForCausalLM": ("llama", GQA),
    "Qwen2ForCausalLM": ("qwen2", {**GQA, "tie_word_embeddings": True}),
    "Gemma2ForCausalLM": ("gemma2", GQA),
    "GPT2LMHeadModel": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}),
    "GPT2Model": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64}),
    "T5ForConditionalGeneration": (
        "t5",
        {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 64},
    ),
    "BertForMaskedLM": ("bert", TINY),
    "BertModel": ("bert", TINY),
    "RobertaForMaskedLM": ("roberta", TINY),
    "CLIPModel": (
        "clip",
        {"text_config": TINY, "vision_config": PICTURES, "projection_dim": 16},
    ),
    "ViTForImageClassification": ("vit", PICTURES),
    "MixtralForCausalLM": ("mixtral", {**GQA, "num_local_experts": 4}),
    "Qwen2MoeForCausalLM": (
        "qwen2_moe",
        {**MOE, "num_experts": 4, "shared_expert_intermediate_size": 24},
    ),
    "Qwen3MoeForCausalLM": ("qwen3_moe", {**MOE, "num_experts": 4}),
    "MambaForCausalLM": (
        "mamba",
        {"hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 64, "state_size": 4},
    ),
}
SOUND = {"missing": [], "unexpected": [], "mismatched": []}


class Child:
    """The program, spoken to as ExpectedTensors does."""

    def __init__(self) -> None:
        self._child = LoadingChild()

    def ask(self, **request):
        return self._child.ask(request)

    def tensors(self, config, tensors):
        shapes = [[name, list(tensor.shape)] for name, tensor in tensors.items()]
        return self.ask(config=config, tensors=shapes)

    def end(self) -> None:
        assert self._child._child.starts == 1
        self._child.close()


@pytest.fixture(scope="module")
def child():
    process = Child()
    yield process
    process.end()


@pytest.fixture(scope="module", params=MODELS)
def model(request, tmp_path_factory):
    """A model as transformers writes it: its config, its tensors, its folder."""
    kind, settings = MODELS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    config = transformers.CONFIG_MAPPING[kind](**settings)
    getattr(transformers, request.param)(config).save_pretrained(folder)
    return request.param, folder


def a_norm(tensors):
    return next(each for each in tensors if re.search(r"(norm.*|ln_f)\.weight$", each.lower()))


def parts(folder):
    return json.loads((folder / "config.json").read_text()), load_file(folder / "model.safetensors")


def test_a_sound_model_is_sound(child, model):
    name, folder = model
    sound = {"state": "looked", "loaded_as": name, **SOUND}
    assert child.ask(folder=str(folder)) == sound
    assert child.tensors(*parts(folder)) == sound


def test_a_tensor_that_is_missing_or_misnamed_is_told(child, model):
    _, folder = model
    config, tensors = parts(folder)
    name = a_norm(tensors)
    kept = tensors.pop(name)
    told = child.tensors(config, tensors)
    assert len(told["missing"]) == 1
    assert told["missing"][0].endswith(name.rsplit(".", 1)[-1])
    told = child.tensors(config, {**tensors, "_orig_mod." + name: kept})
    assert len(told["missing"]) == 1
    (odd,) = told["unexpected"]
    assert odd.startswith("_orig_mod.")


def test_another_shape_is_told(child, model):
    _, folder = model
    config, tensors = parts(folder)
    name = a_norm(tensors)
    tensors[name] = torch.empty(len(tensors[name]) + 1)
    told = child.tensors(config, tensors)
    assert [each[1:] for each in told["mismatched"]] == [
        [[len(tensors[name])], [len(tensors[name]) - 1]]
    ]
    assert told["missing"] == told["unexpected"] == []


def test_without_architectures_the_class_that_fits_is_found(child, model):
    _, folder = model
    config, tensors = parts(folder)
    del config["architectures"]
    told = child.tensors(config, tensors)
    assert {key: told[key] for key in SOUND} == SOUND


def test_what_is_not_known_is_said(child):
    told = child.tensors({"model_type": "chatglm", "architectures": ["ChatGLMModel"]}, {})
    assert told["state"] == "unknown"
    assert "knows no 'chatglm'" in told["why"]
    told = child.tensors({"model_type": "llama", "architectures": ["GenerationMixin"], **GQA}, {})
    assert told == {"state": "unknown", "why": told["why"]}
    assert "has no such class" in told["why"]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"num_hidden_layers": 10**8}, "config.json describes a far larger model than the te"),
        ({"hidden_size": "wide"}, "Error: "),
        ({"num_attention_heads": 0}, "Error: "),
    ],
)
def test_a_hostile_config_is_bounded(child, settings, match):
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **GQA, **settings}
    told = child.tensors(config, {"model.norm.weight": torch.empty(32)})
    assert told["state"] == "failed"
    assert match in told["why"]


def test_remote_code_is_not_run(child, model, tmp_path):
    name, folder = model
    config, tensors = parts(folder)
    module = tmp_path / "modeling_evil.py"
    module.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    config["auto_map"] = {"AutoConfig": "modeling_evil.Evil", "AutoModel": "modeling_evil.Evil"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    assert child.ask(folder=str(tmp_path))["loaded_as"] == name
    assert not (tmp_path / "ran").exists()


def test_a_file_that_is_cut_short_does_not_load(child, model, tmp_path):
    _, folder = model
    data = (folder / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(data[:-10])
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert child.ask(folder=str(tmp_path))["state"] == "failed"


# ------------------------------------------------------------------ judging
