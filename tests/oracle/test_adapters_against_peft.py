"""A base with an adapter on it equals PEFT's own merge, and mergekit's `model+lora`, in float32."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM, GPT2Config, GPT2LMHeadModel

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.jobs.extraction_plan import ExtractionSettings, plan_extraction
from merge_ops.jobs.lora_extraction import extract
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import (
    LLAMA,
    QWEN2,
    Tensors,
    expert_tensors,
    read_tensors,
    write_checkpoint,
    write_family,
)
from tests.oracle.peers.oracle_environment import (
    OracleCase,
    PeftCase,
    merge_with_mergekit,
    merge_with_peft,
    write_config,
)
from tests.oracle.test_against_mergekit import assert_equal, nowhere

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LONGER = 280  # rows of a base that was lengthened before the adapter was made
USUAL = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16}

# name: (family, what differs from USUAL)
MERGED = {
    "all-linear": ("llama", {"target_modules": LINEAR}),
    "biased-layers": ("qwen2", {"target_modules": LINEAR}),
    "rslora": ("llama", {"target_modules": ["q_proj", "down_proj"], "use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": LINEAR,
            "rank_pattern": {"up_proj": 3, r"model\.layers\.1\.self_attn\.\w_proj": 2},
            "alpha_pattern": {"layers.0.mlp.down_proj": 5, "q_proj": 1.5},
        },
    ),
    "embedding": ("llama", {"target_modules": ["embed_tokens", "q_proj"]}),
    "tied-embedding": ("qwen2", {"target_modules": ["embed_tokens", "q_proj"]}),
    "whole-modules": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head", "norm"]},
    ),
    "tied-whole-embedding": (
        "qwen2",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "tied-whole-embedding-and-head": (
        "qwen2",
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["embed_tokens"],
            "ensure_weight_tying": True,
        },
    ),
    "bias-all": ("qwen2", {"target_modules": ["q_proj", "o_proj"], "bias": "all"}),
    "bias-lora-only": ("qwen2", {"target_modules": ["q_proj", "o_proj"], "bias": "lora_only"}),
    "lora-bias": ("qwen2", {"target_modules": ["q_proj", "v_proj"], "lora_bias": True}),
    "implied-tie-whole-embedding": (
        "gemma2",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "implied-tie-embedding": ("gemma2", {"target_modules": ["embed_tokens", "q_proj"]}),
    "implied-tie-head": (
        "gemma2",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "own-head-whole-embedding": (
        "own-head",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "own-head-whole-head": (
        "own-head",
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ),
    "own-head-embedding": ("own-head", {"target_modules": ["embed_tokens", "q_proj"]}),
    "copied-head-whole-embedding": (
        "copied-head",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    ),
    "copied-head-embedding": ("copied-head", {"target_modules": ["embed_tokens", "q_proj"]}),
    "longer-whole": (
        "llama",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "longer-kept-by-the-way": ("llama", {"target_modules": ["q_proj"]}),
    "longer-tied-embedding": ("qwen2", {"target_modules": ["embed_tokens", "q_proj"]}),
    "longer-tied-whole": (
        "qwen2",
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    ),
    "conv1d": ("gpt2", {"target_modules": ["c_attn", "c_proj"], "fan_in_fan_out": True}),
}
REFUSED = {
    "dora": ("llama", {"target_modules": ["q_proj"], "use_dora": True}, "DoRA"),
    "ia3": (
        "llama",
        {"peft_type": "IA3", "target_modules": ["q_proj"], "feedforward_modules": []},
        "peft_type is 'IA3'",
    ),
    "pissa": (
        "llama",
        {"target_modules": ["q_proj"], "init_lora_weights": "pissa"},
        "changes the base's own weights",
    ),
    "replication": (
        "llama",
        {"target_modules": ["q_proj"], "layer_replication": [[0, 2], [1, 3]]},
        "it repeats layers",
    ),
    "tokens": (
        "llama",
        {"target_modules": ["q_proj"], "trainable_token_indices": [1, 2]},
        "single rows of an embedding",
    ),
}
ALONE = "merge_method: passthrough\nmodels: [{model: $base+$adapter}]\ndtype: float32\n"
MIXED = """
    merge_method: ties
    models:
      - {model: $base+$adapter, parameters: {weight: 0.6, density: 0.5}}
      - {model: $expert, parameters: {weight: 0.7, density: 0.4}}
    base_model: $base
    dtype: float32
    """


@dataclass(frozen=True)
class Merges:
    """What PEFT and mergekit made, and where."""

    work: Path
    bases: dict[str, Path]
    expert: Path
    outcomes: dict[str, str | None]

    def ours(self, name: str, family: str, text: str = ALONE) -> Tensors:
        models = {"base": self.bases[family], "adapter": self.work / "adapters" / name}
        models["expert"] = self.expert
        config = write_config(self.work / f"ours-{name}.yaml", text, models)
        return read_tensors(merge_in_process(config, self.work / "ours" / name))


@pytest.fixture(scope="module")
def merges(tmp_path_factory: pytest.TempPathFactory) -> Merges:
    work = tmp_path_factory.mktemp("peft")
    llama, experts = write_family(work / "llama", LLAMA)
    qwen, _ = write_family(work / "qwen2", QWEN2, experts=0)
    bases = {"llama": llama, "qwen2": qwen, "gpt2": write_gpt2(work / "gpt2")}
    bases["gemma2"] = write_gemma2(work / "gemma2")
    embedding = read_tensors(qwen)["model.embed_tokens.weight"]
    heads = {"own-head": embedding.flip(0).contiguous(), "copied-head": embedding}
    for name, head in heads.items():
        tensors = {**read_tensors(qwen), "lm_head.weight": head}
        bases[name] = write_checkpoint(work / name, tensors, QWEN2)
    asked = {name: (family, config) for name, (family, config, _) in REFUSED.items()}
    cases = [
        PeftCase(name, bases[family], work / "adapters" / name, work / "peft" / name,
                 {**USUAL, **config} if "peft_type" not in config else config,
                 rows=LONGER if name.startswith("longer-") else None)
        for name, (family, config) in (MERGED | asked).items()
    ]  # fmt: skip
    return Merges(work, bases, experts[0], merge_with_peft(work, cases))


def write_gpt2(folder: Path) -> Path:
    """A tiny GPT-2, whose Conv1D layers keep [in, out]."""
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 100, "n_positions": 32}
    GPT2LMHeadModel(GPT2Config(**sizes)).save_pretrained(folder)
    return folder


def write_gemma2(folder: Path) -> Path:
    """A tiny Gemma 2, whose class ties by default and whose config leaves that out."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100}
    Gemma2ForCausalLM(Gemma2Config(**sizes, **heads)).save_pretrained(folder)
    config = folder / "config.json"
    said = json.loads(config.read_text(encoding="utf-8"))
    said.pop("tie_word_embeddings", None)
    config.write_text(json.dumps(said), encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", MERGED)
def test_equals_peft(merges: Merges, name: str) -> None:
    assert merges.outcomes[name] is None, merges.outcomes[name]
    theirs = read_tensors(merges.work / "peft" / name)
    assert_equal(merges.ours(name, MERGED[name][0]), theirs, nowhere)


@pytest.mark.parametrize("name", REFUSED)
def test_other_kinds_are_refused(merges: Merges, name: str) -> None:
    family, _, message = REFUSED[name]
    with pytest.raises(CompatibilityError, match=message):
        merges.ours(name, family)


def test_equals_mergekit_with_an_adapter_among_experts(merges: Merges) -> None:
    models = {"base": merges.bases["llama"], "expert": merges.expert}
    models["adapter"] = merges.work / "adapters" / "patterns"
    config = write_config(merges.work / "mixed.yaml", MIXED, models)
    case = OracleCase("mixed", config, merges.work / "mergekit")
    assert merge_with_mergekit(merges.work, [case]) == {"mixed": None}
    ours = read_tensors(merge_in_process(config, merges.work / "ours-mixed"))
    assert_equal(ours, read_tensors(case.out), nowhere)


def test_peft_loads_what_is_extracted(merges: Merges) -> None:
    """PEFT merges an extracted adapter (factors, biases, whole modules) to what ours does."""
    base = merges.bases["qwen2"]
    tensors = expert_tensors(read_tensors(base), 3)
    tuned = write_checkpoint(merges.work / "tuned", tensors, QWEN2)
    adapter, out = merges.work / "adapters" / "extracted", merges.work / "peft" / "extracted"
    first, second = (open_checkpoint(str(each), FolderSource(each)) for each in (base, tuned))
    extract(plan_extraction(first, second, ExtractionSettings(rank=48)), FolderSink(adapter))
    case = PeftCase("extracted", base, adapter, out)
    assert merge_with_peft(merges.work, [case]) == {"extracted": None}
    theirs = read_tensors(out)
    assert_equal(merges.ours("extracted", "qwen2"), theirs, nowhere)
    whole = "model.layers.0.self_attn.k_proj.weight"  # 32 rows: its rank is whole
    torch.testing.assert_close(theirs[whole], tensors[whole], rtol=1e-5, atol=1e-7)
