"""Folders as people might have them: generated models, side files and indexes, right and wrong.

A case is a recipe over a base and one or two experts. Each model is a tiny Llama, Qwen2 or GPT-2
that is written in one of many ways: its config, its tensors, its files and what lies beside them
are changed by rules that are drawn. Some changes leave the model what it is, others spoil it; a
case does not know which. What must hold is asked of transformers: see `asked`.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import save_file

Tensors = dict[str, torch.Tensor]
KINDS = ("llama", "qwen2", "gpt2")
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
HEAD = "lm_head.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "transformer.wte.weight")


@dataclass
class Model:
    """A model before it is written: what rules change."""

    config: dict[str, Any]
    tensors: Tensors
    sides: dict[str, str] = field(default_factory=dict)
    shards: int = 1
    after: list[Callable[[Path], None]] = field(default_factory=list)

    @property
    def embedding(self) -> str:
        """The name of the input embedding, whatever was put before it."""
        return next((name for name in self.tensors if name.endswith(EMBEDDINGS)), "")

    @property
    def layers(self) -> list[str]:
        """The names of tensors in layers."""
        return [name for name in self.tensors if ".0." in name or ".1." in name]


@dataclass(frozen=True)
class Case:
    """A recipe file, its models' folders, and what was done to each."""

    recipe: Path
    method: str
    models: tuple[Path, ...]
    rules: tuple[str, ...]


@cache
def family(kind: str) -> tuple[dict[str, Any], Mapping[str, tuple[int, ...]]]:
    """The config of a tiny model, and its tensors' shapes as transformers saves them."""
    import transformers

    sizes = {
        "vocab_size": 24, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 32,
        "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None,
    }  # fmt: skip
    if kind == "gpt2":
        sizes = {
            "vocab_size": 24, "n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 32,
            "bos_token_id": 0, "eos_token_id": 1,
        }  # fmt: skip
    names = {"llama": "Llama", "qwen2": "Qwen2", "gpt2": "GPT2"}
    config = getattr(transformers, f"{names[kind]}Config")(**sizes)
    suffix = "LMHeadModel" if kind == "gpt2" else "ForCausalLM"
    with torch.device("meta"):
        model = getattr(transformers, f"{names[kind]}{suffix}")(config)
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    document = {**config.to_dict(), "architectures": [f"{names[kind]}{suffix}"]}
    return json.loads(json.dumps(document, default=str)), shapes


def _drawn(kind: str, seed: int, tied: bool | None) -> Model:
    config, shapes = family(kind)
    config = json.loads(json.dumps(config))
    generator = torch.Generator().manual_seed(seed)
    tensors = {
        name: torch.randn(shape, generator=generator).mul(0.1).add(float("norm" in name))
        for name, shape in shapes.items()
    }
    config.pop("tie_word_embeddings", None)
    if tied is not None:
        config["tie_word_embeddings"] = tied
    model = Model(config, tensors)
    if tied is False and kind != "gpt2" and HEAD not in tensors:
        tensors[HEAD] = torch.randn(tensors[model.embedding].shape, generator=generator).mul(0.1)
    if tied:
        tensors.pop(HEAD, None)
    return model


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
            model.tensors[name].flatten()[0] = rng.choice((float("inf"), float("nan")))


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
        save_file(old, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
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
        save_file({"x.weight": torch.ones(2)}, folder / rng.choice(name))

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


def write_case(rng: random.Random, folder: Path) -> Case:
    """Draw a case and write it below an empty folder."""
    kind = rng.choice(("llama", "llama", "qwen2", "gpt2"))
    tied = rng.choice((True, False, None))
    common = rng.sample(sorted(RULES), rng.choice((0, 0, 0, 1)))
    done: list[str] = []
    folders: list[Path] = []
    for number, name in enumerate(("base", "e1", "e2")):
        own = rng.sample(sorted(RULES), rng.choice((0, 0, 1, 1, 2)))
        model = _drawn(kind, 10 + number, tied)
        shared = random.Random(rng.random()) if rng.random() < 0.2 else random.Random(str(common))
        for rule, draws in [*((each, shared) for each in common), *((each, rng) for each in own)]:
            RULES[rule](draws, model)
        done += [f"{name}: {rule}" for rule in (*common, *own)]
        folders.append(_write(model, folder / name))
    method = rng.choice(("linear", "linear", "task_arithmetic", "ties", "passthrough"))
    recipe = folder / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(rng, method, folders)), encoding="utf-8")
    return Case(recipe, method, tuple(folders), tuple(done))


def _write(model: Model, folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(model.config), encoding="utf-8")
    tensors = {name: value.contiguous().clone() for name, value in model.tensors.items()}
    names = sorted(tensors)
    if model.shards == 1 or len(names) < model.shards:
        save_file(tensors, folder / SINGLE, {"format": "pt"})
    else:
        weight_map: dict[str, str] = {}
        for shard in range(model.shards):
            file = f"model-{shard + 1:05d}-of-{model.shards:05d}.safetensors"
            part = {name: tensors[name] for name in names[shard :: model.shards]}
            save_file(part, folder / file, {"format": "pt"})
            weight_map |= dict.fromkeys(part, file)
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    for name, text in model.sides.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    for change in model.after:
        change(folder)
    return folder


def _recipe(rng: random.Random, method: str, folders: list[Path]) -> dict[str, Any]:
    base, *experts = map(str, folders)
    if method == "passthrough":
        ranges = rng.choice((((0, 2), (1, 2)), ((0, 1), (0, 2)), ((0, 2), (0, 2))))
        return {
            "merge_method": method,
            "slices": [
                {"sources": [{"model": each, "layer_range": list(chosen)}]}
                for each, chosen in zip((base, experts[0]), ranges, strict=True)
            ],
        }
    models = [{"model": each, "parameters": {"weight": 0.5}} for each in experts]
    document: dict[str, Any] = {"merge_method": method, "models": models}
    if method == "linear":
        document["models"] = [{"model": base, "parameters": {"weight": 0.5}}, models[0]]
    else:
        document["base_model"] = base
    if method == "ties":
        document["parameters"] = {"density": 0.5}
    if rng.random() < 0.15:
        document["dtype"] = rng.choice(("float16", "bfloat16", "float32"))
    return document


def asked(case: Case, out: Path) -> str | None:
    """What is wrong with a merge that was done, asked of transformers; None where nothing is.

    The output must load with no weight missing or drawn at random; it may fail to load where its
    base fails too, which nobody takes for a model. Where it is a mean of two models that load
    soundly themselves, each parameter must be the mean of theirs.
    """
    merged, problem = _loaded(out)
    if merged is None:
        never = "missing_keys" not in problem and _loaded(case.models[0])[0] is None
        return None if never else f"the output does not load: {problem}"
    if case.method != "linear":
        return None
    parts = [_loaded(folder)[0] for folder in case.models[:2]]
    if parts[0] is None or parts[1] is None:
        return None
    for name, value in merged.items():
        both = [part.get(name) for part in parts]
        if both[0] is None or both[1] is None or both[0].shape != value.shape:
            return f"'{name}' is not in both inputs as transformers loads them"
        mean = (both[0].double() + both[1].double()) / 2
        if not torch.allclose(value.double(), mean, rtol=1e-2, atol=1e-3):
            return f"'{name}' is not the mean of what transformers loads"
    return None


def _loaded(folder: Path) -> tuple[Tensors | None, str]:
    """The parameters of a folder as transformers loads it; None and why where it does not."""
    import transformers

    name = (json.loads((folder / "config.json").read_text()).get("architectures") or [None])[0]
    loader = getattr(transformers, str(name), transformers.AutoModelForCausalLM)
    try:
        model, said = loader.from_pretrained(
            folder, output_loading_info=True, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # whatever a loader raises is the finding
        return None, f"{type(error).__name__}: {str(error)[:300]}"
    for what in ("missing_keys", "mismatched_keys"):
        if said[what]:
            return None, f"{what}: {sorted(map(str, said[what]))[:4]}"
    return {
        key: value.detach() for key, value in model.named_parameters(remove_duplicate=False)
    }, ""
