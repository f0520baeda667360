"""Right documents of every kind that is read from strangers, for the fuzz tests to spoil."""

from typing import Any

from blake3 import blake3

from resources.store.artifact import FileRecord, content_digest

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2,
    "num_hidden_layers": 2,
    "layer_types": ["full_attention", "full_attention"],
    "vocab_size": 4,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
    "eos_token_id": [1, 2],
    "text_config": {"num_hidden_layers": 2, "vocab_size": 4, "tie_word_embeddings": True},
    "rope_scaling": {"type": "linear", "factor": 2.0},
}
GENERATION = {"eos_token_id": [1, 2], "bos_token_id": 1, "temperature": 0.6}
TOKENIZER: dict[str, Any] = {
    "version": "1.0",
    "added_tokens": [
        {"id": 3, "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True},
    ],
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "根": 2}, "merges": [["a", "b"]]},
}  # fmt: skip
TOKENIZER_CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "eos_token": "<s>",
    "chat_template": [{"name": "default", "template": "{{ messages }}"}],
    "added_tokens_decoder": {"3": {"content": "<s>", "special": True}},
}
ADAPTER_CONFIG: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 2,
    "lora_alpha": 4,
    "use_rslora": False,
    "fan_in_fan_out": False,
    "lora_bias": False,
    "modules_to_save": None,
    "target_modules": ["q_proj"],
    "rank_pattern": {"layers.0.self_attn.q_proj": 2},
    "alpha_pattern": {".*q_proj": 8},
    "init_lora_weights": True,
}
_HASH = blake3(b"{}").hexdigest()
_FILE = {"path": "config.json", "size": 2, "blake3": _HASH}
MANIFEST: dict[str, Any] = {
    "format": 1,
    "kind": "model",
    "digest": "a" * 64,
    "content_digest": content_digest([FileRecord("config.json", 2, _HASH)]),
    "attempt": "b" * 32,
    "files": [_FILE],
    "created": "2026-11-21T00:00:00.000+00:00",
    "tensors": ["a"],
    "inputs": {"base": "c" * 64},
}
REF: dict[str, Any] = {
    "format": 1,
    "asset": "model",
    "partition": "e1",
    "history": [
        {"id": "1", "kind": "model", "digest": "d" * 64, "at": "2026-11-21T00:00:00.000+00:00"},
        {"id": "2", "kind": "model", "digest": "e" * 64, "at": "2026-11-22T00:00:00.000+00:00",
         "run": "3", "licence": "apache-2.0"},
    ],
}  # fmt: skip
RECIPES = (
    """\
merge_method: ties
base_model: base
models:
- model: x
  parameters: {weight: 1.0, density: [0.1, 0.5]}
- model: y
  parameters:
    weight:
    - filter: mlp
      value: [0, 0.5, 1]
    - value: 0.3
parameters: {normalize: true}
dtype: float32
""",
    """\
merge_method: task_arithmetic
base_model: base
experts: [all-pairs, all, [x, y]]
parameters: {weight: 1.0}
sweep: {lambda: [0.5, 1.0]}
suite: colours
gate: {allowed_loss: 0.05}
seed: 3
out_dtype: bfloat16
""",
    """\
merge_method: passthrough
slices:
- sources:
  - {model: x, layer_range: [0, 2]}
- sources:
  - model: y
    layer_range: [1, 2]
    parameters: {scale: 0.5}
tokenizer:
  source: union
  tokens: {<s>: {source: {kind: model_token, model: x, token_id: 1}, force: true}}
  pad_to_multiple_of: 8
chat_template: auto
""",
    """\
merge_method: slerp
base_model: x
modules:
  text_decoder:
    models: [{model: x}, {model: y}]
    parameters: {t: 0.5}
""",
)
ITEM: dict[str, Any] = {
    "id": "1", "split": "test", "prompt": "1+1=", "choices": ["1", "2"], "answer": 1,
}  # fmt: skip
SUITE = """\
name: s
description: a suite
seed: 3
benchmarks:
- name: herbs
  items: items.jsonl
  prompt: "{prompt}"
  limit: 2
- name: medicine
  task: cmmlu
  num_fewshot: 5
  validation_share: 0.5
  data_files: {test: items.jsonl}
"""
MODELS_FILE = """\
models:
- name: base
  source: ../base
  licence: Apache-2.0
- name: e1
  source: hf://owner/name@main
  base: base
  kind: full
  store: packed
- {name: e2, source: ../e2, base: base, kind: lora, follow_links: true}
"""
_LAUGHS = "[&l0 [a, a, a, a, a, a, a, a], "
_LAUGHS += ", ".join(f"&l{n} [{', '.join([f'*l{n - 1}'] * 8)}]" for n in range(1, 12)) + "]"
_MERGES = "[&m0 {a: 1, b: 2}, "
_MERGES += ", ".join(f"&m{n} {{<<: [{', '.join([f'*m{n - 1}'] * 8)}]}}" for n in range(1, 12)) + "]"
YAML_PIECES = (
    _LAUGHS, _MERGES, "&a [*a]", "&a {b: *a}", "*nobody", "[" * 5000, "{a: " * 400, "- " * 3000,
    "!!python/object/apply:os.system ['true']", "!!binary x", "!!timestamp x", "!!int x",
    "!!float x", "!!bool x", "!!set {a, b}", "!!omap [a: 1]", "!!null x", "!x y", "2001-99-99",
    "2001-01-01 00:00:00+99:99", "9" * 5000, "0x", "0b", "1:99", ".nan", ".inf", "-.inf", "1e400",
    "10" * 200, "~", "''", "[]", "{}", "{? [a] : b}", "{1: 2}", "{null: 1}", "{true: 1, a: 2}",
    "<<: 3", "a: b: c", "\t", "\0", "\x85", "\ufeff", "\ud800", "'\\ud800'", '"\\ud800"', "%YAML 9",
    "---", "...", "--- x", "| x", ">", "@", "`", "[0, 1", "}", "parameters", "models", "x" * 2000,
    "{kind: []}", "{kind: {}}", "{source: [1]}", "[x, x]", "[[], [[]]]", "all", "x+y", "+", "-1",
    "1.5", "true", "text", "[0.5, a]", "{filter: [], value: {}}", "[{filter: mlp}]", "0", "1_000",
)  # fmt: skip
