"""Tiny real checkpoints, items and suites for the tests of eval_ops."""

import json
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval_ops.scores.scores import Sample, SuiteScores, summarize

WORDS = ["ginseng", "ginger", "mint", "rhubarb", "warms", "cools", "calms", "lungs", "spleen", "qi"]


def _write_tokenizer(folder: Path) -> int:
    """Save a byte-level BPE tokenizer of a few hundred tokens; return how many."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 3, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    return tokenizer.get_vocab_size()


def _write_checkpoint(folder: Path, seed: int, kind: str = "qwen2", **settings: Any) -> Path:
    """Save a random model of some ten thousand parameters with its tokenizer."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    size = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.3,
        "tie_word_embeddings": True,
    }
    config = AutoConfig.for_model(kind, vocab_size=_write_tokenizer(folder), **size | settings)
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _write_items(path: Path, n: int = 24, seed: int = 0, choices: int = 4) -> Path:
    """Write n own items, every second one for testing, with prompts of many lengths."""
    draw = random.Random(seed)
    rows = [
        {
            "id": f"{path.stem}-{number:03}",
            "split": ("validation", "test")[number % 2],
            "prompt": f"{number}. What {' '.join(draw.choices(WORDS, k=draw.randint(2, 9)))}? ",
            "choices": [
                f"{' '.join(draw.choices(WORDS, k=draw.randint(1, 3)))} {letter}"
                for letter in "abcdef"[:choices]
            ],
            "answer": draw.randrange(choices),
        }
        for number in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models are slower on two threads, much slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def write_checkpoint() -> Callable[..., Path]:
    """The maker of checkpoints: (folder, seed, kind, **config) → folder."""
    return _write_checkpoint


@pytest.fixture(scope="session")
def write_items() -> Callable[..., Path]:
    """The maker of items files: (path, n, seed, choices) → path."""
    return _write_items


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three Qwen2 checkpoints of one shape and different weights."""
    root = tmp_path_factory.mktemp("checkpoints")
    return [_write_checkpoint(root / f"model{seed}", seed) for seed in range(3)]


@pytest.fixture(scope="session")
def suite_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite of two benchmarks of own items."""
    root = tmp_path_factory.mktemp("suite")
    _write_items(root / "herbs.jsonl", 24, seed=1)
    _write_items(root / "idioms.jsonl", 20, seed=2, choices=3)
    path = root / "tiny.yaml"
    path.write_text(
        "name: tiny\n"
        "benchmarks:\n"
        "  - {name: herbs, items: herbs.jsonl}\n"
        "  - {name: idioms, items: idioms.jsonl, metric: acc_norm, delimiter: ' '}\n"
    )
    return path


ScoresOf = Callable[..., SuiteScores]


@pytest.fixture(scope="session")
def scores_of() -> ScoresOf:
    """A maker of scores: benchmark → (validation values, test values), 1 right and 0 wrong."""

    def make(suite_digest: str = "s" * 64, **values: tuple[Sequence[float], Sequence[float]]):
        samples = [
            Sample(benchmark, split, f"{benchmark}-{split}-{number}", float(value))
            for benchmark, pair in values.items()
            for split, answers in zip(("validation", "test"), pair, strict=True)
            for number, value in enumerate(answers)
        ]
        scores = summarize(samples, "acc", "1")
        return SuiteScores("tiny", suite_digest, scores, tuple(samples), {"lm_eval": "0"})

    return make
