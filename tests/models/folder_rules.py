"""What may be done to a model of the folder cases before it is written, and to its folder after.

Some changes leave the model what it is, others spoil it; a rule does not say which.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import torch

from tests.models.folder_models import HEAD, INDEX, SINGLE, Model, write_weights

Rule = Callable[[random.Random, Model], None]
RULES: dict[str, Rule] = {}


def _rule(rule: Rule) -> Rule:
    RULES[rule.__name__] = rule
    return rule


@_rule
def head_equal_to_embedding(rng: random.Random, model: Model) -> None:
    if model.embedding:
        model.tensors[HEAD] = model.tensors[model.embedding].clone()


@_rule
def head_of_its_own(rng: random.Random, model: Model) -> None:
    if model.embedding:
        model.tensors[HEAD] = model.tensors[model.embedding].flip(0) * 0.7


@_rule
def head_left_out(rng: random.Random, model: Model) -> None:
    model.tensors.pop(HEAD, None)


@_rule
def tie_said(rng: random.Random, model: Model) -> None:
    model.config["tie_word_embeddings"] = rng.random() < 0.5


@_rule
def tie_unsaid(rng: random.Random, model: Model) -> None:
    model.config.pop("tie_word_embeddings", None)


@_rule
def prefix_of_a_wrapper(rng: random.Random, model: Model) -> None:
    prefix = rng.choice(("_orig_mod.", "module.", "_fsdp_wrapped_module.", "model.", "net."))
    part = rng.random() < 0.2
    model.tensors = {
        name if part and rng.random() < 0.5 else prefix + name: value
        for name, value in model.tensors.items()
    }


@_rule
def prefix_of_the_base_model_missing(rng: random.Random, model: Model) -> None:
    model.tensors = {
        name.removeprefix("model.").removeprefix("transformer."): value
        for name, value in model.tensors.items()
    }


@_rule
def tensor_missing(rng: random.Random, model: Model) -> None:
    if model.tensors:
        model.tensors.pop(rng.choice(list(model.tensors)))


@_rule
def tensor_added(rng: random.Random, model: Model) -> None:
    names = ("model.layers.0.self_attn.q_norm.weight", "model.layers.2.mlp.up_proj.weight",
             "score.weight", "model.layers.0.x.lora_A.weight")  # fmt: skip
    model.tensors[rng.choice(names)] = torch.ones(8)


@_rule
def buffer_added(rng: random.Random, model: Model) -> None:
    name, value = rng.choice(
        (
            ("model.layers.0.self_attn.rotary_emb.inv_freq", torch.ones(2)),
            ("model.rotary_emb.inv_freq", torch.ones(2)),
            ("transformer.h.0.attn.bias", torch.ones(1, 1, 32, 32).tril().bool()),
            ("transformer.h.0.attn.masked_bias", torch.tensor(-1e4)),
            ("model.position_ids", torch.arange(32)[None]),
        )
    )
    model.tensors[name] = value


@_rule
def placeholders(rng: random.Random, model: Model) -> None:
    for name in list(model.tensors):
        if rng.random() < 0.7:
            model.tensors[name] = torch.empty(0)


@_rule
def integers(rng: random.Random, model: Model) -> None:
    for name in model.layers:
        if "proj" in name or "attn" in name:
            kind = rng.choice((torch.int8, torch.uint8, torch.int32))
            model.tensors[name] = (model.tensors[name] * 100).to(kind)
            model.tensors[f"{name}_scale"] = torch.full((1,), 0.01)


@_rule
def half_precision(rng: random.Random, model: Model) -> None:
    dtype = rng.choice((torch.float16, torch.bfloat16, torch.float64))
    model.tensors = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in model.tensors.items()
    }


@_rule
def not_finite(rng: random.Random, model: Model) -> None:
    if model.tensors:
        name = rng.choice(list(model.tensors))
        if model.tensors[name].is_floating_point() and model.tensors[name].numel():
            value = model.tensors[name].clone()
            value.flatten()[0] = rng.choice((float("inf"), float("nan")))
            model.tensors[name] = value


@_rule
def other_shape(rng: random.Random, model: Model) -> None:
    names = [name for name, value in model.tensors.items() if value.dim() == 2]
    if names:
        name = rng.choice(names)
        value = model.tensors[name]
        model.tensors[name] = rng.choice((value.t(), torch.cat([value, value]), value[:-1]))


@_rule
def more_rows(rng: random.Random, model: Model) -> None:
    rows = rng.choice((1, 8))
    for name in (model.embedding, HEAD):
        if name in model.tensors and model.tensors[name].dim() == 2:
            value = model.tensors[name]
            model.tensors[name] = torch.cat([value, value[:rows]])
    if rng.random() < 0.7:
        model.config["vocab_size"] = 24 + rows


@_rule
def layers_counted_otherwise(rng: random.Random, model: Model) -> None:
    key = "n_layer" if "n_layer" in model.config else "num_hidden_layers"
    model.config[key] = rng.choice((1, 3, 2, 0))


@_rule
def width_said_otherwise(rng: random.Random, model: Model) -> None:
    key = rng.choice(("hidden_size", "n_embd", "intermediate_size", "num_attention_heads"))
    if key in model.config:
        model.config[key] = rng.choice((4, 16, 8))


@_rule
def config_key_gone(rng: random.Random, model: Model) -> None:
    model.config.pop(rng.choice(list(model.config)), None)


@_rule
def config_nested(rng: random.Random, model: Model) -> None:
    model.config["text_config"] = {"tie_word_embeddings": rng.random() < 0.5}


@_rule
def quantization_said(rng: random.Random, model: Model) -> None:
    said = rng.choice((None, {}, {"quant_method": "gptq", "bits": 4}))
    model.config[rng.choice(("quantization_config", "quantization"))] = said


@_rule
def rope_written_otherwise(rng: random.Random, model: Model) -> None:
    model.config["rope_theta"] = rng.choice((10000.0, 500000.0))
    if rng.random() < 0.5:
        model.config.pop("rope_parameters", None)


@_rule
def several_shards(rng: random.Random, model: Model) -> None:
    model.shards = rng.choice((2, 3))


@_rule
def stale_index(rng: random.Random, model: Model) -> None:
    def write(folder: Path) -> None:
        old = {name: (value * 3).contiguous() for name, value in model.tensors.items()}
        write_weights(old, folder / "model-00001-of-00001.safetensors")
        weight_map = dict.fromkeys(old, "model-00001-of-00001.safetensors")
        if rng.random() < 0.3:
            (folder / "model-00001-of-00001.safetensors").unlink()
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    model.after.append(write)


@_rule
def index_lost(rng: random.Random, model: Model) -> None:
    model.after.append(lambda folder: (folder / INDEX).unlink(missing_ok=True))


@_rule
def shard_lost(rng: random.Random, model: Model) -> None:
    def lose(folder: Path) -> None:
        files = sorted(folder.glob("*.safetensors"))
        if files:
            rng.choice(files).unlink()

    model.after.append(lose)


@_rule
def cut_short(rng: random.Random, model: Model) -> None:
    def cut(folder: Path) -> None:
        for file in [each for each in sorted(folder.glob("*.safetensors")) if each.exists()][:1]:
            os.truncate(file, rng.choice((0, 7, 130, max(0, file.stat().st_size - 4))))

    model.after.append(cut)


@_rule
def pointer_instead_of_weights(rng: random.Random, model: Model) -> None:
    def point(folder: Path) -> None:
        for file in [each for each in sorted(folder.glob("*.safetensors")) if each.exists()][:1]:
            file.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\n")

    model.after.append(point)


@_rule
def link_to_nowhere(rng: random.Random, model: Model) -> None:
    def relink(folder: Path) -> None:
        for file in sorted(folder.glob("*.safetensors"))[:1]:
            file.unlink()
            file.symlink_to("../blobs/gone")

    model.after.append(relink)


@_rule
def file_named_otherwise(rng: random.Random, model: Model) -> None:
    def rename(folder: Path) -> None:
        file = folder / SINGLE
        if file.is_file():
            name = ("weights.safetensors", "consolidated.safetensors", "model.fp16.safetensors",
                    "adapter_model.safetensors", "pytorch_model.safetensors")  # fmt: skip
            file.rename(folder / rng.choice(name))

    model.after.append(rename)


@_rule
def another_file_beside(rng: random.Random, model: Model) -> None:
    def add(folder: Path) -> None:
        name = ("consolidated.safetensors", "adapter_model.safetensors", "extra.safetensors",
                "model.fp16.safetensors", "optimizer.safetensors")  # fmt: skip
        write_weights({"x.weight": torch.ones(2)}, folder / rng.choice(name))

    model.after.append(add)


@_rule
def adapter_config_beside(rng: random.Random, model: Model) -> None:
    model.sides["adapter_config.json"] = json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4})


@_rule
def side_files(rng: random.Random, model: Model) -> None:
    choices = {
        "generation_config.json": json.dumps({"eos_token_id": rng.choice((1, 3, [1, 2]))}),
        "quantize_config.json": json.dumps({"bits": 4}),
        "trainer_state.json": "{}",
        "zero_to_fp32.py": "print()",
        "tokenizer.model": "not a protobuf",
        "tokenizer.json": json.dumps(
            {"model": {"type": "BPE", "vocab": {"a": rng.choice((0, 1))}}}
        ),
        "added_tokens.json": json.dumps({"<x>": rng.choice((24, 25))}),
        "1_Pooling/config.json": "{}",
        "README.md": "---\nlicense: mit\n---\n",
        "model_index.json": json.dumps({"_class_name": "StableDiffusionPipeline"}),
    }
    for name in rng.sample(sorted(choices), rng.randrange(1, 4)):
        model.sides[name] = choices[name]


@_rule
def side_file_broken(rng: random.Random, model: Model) -> None:
    name = rng.choice(("generation_config.json", "tokenizer.json", "tokenizer_config.json"))
    model.sides[name] = rng.choice(("", "{", "[]", "null", '{"a": NaN}', "\ufeff{}"))
