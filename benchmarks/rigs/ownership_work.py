"""Real fine-tunes of one small base, for the calibration of `ronghe inspect --against`.

A Llama of half a million weights reads bytes. The base is trained on all texts, each expert on one
kind of text, or on half of it; a twin is an expert's own training with other random numbers. Texts
are those of the real data that tests read (RONGHE_TEST_DATA).
"""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

LENGTH, BATCH = 64, 16
BASE_STEPS, EXPERT_STEPS = 160, 60
WITH_SIBLINGS = 4  # kinds of text of which there are two halves, and a twin
BASE_RATE, EXPERT_RATE = 3e-3, 1e-3
CONFIG = {
    "vocab_size": 264, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
    "tie_word_embeddings": False, "bos_token_id": 256, "eos_token_id": 256,
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """A trained family: the base, experts by the kind of text, and the twins of some of them."""

    base: Path
    experts: dict[str, Path]
    twins: dict[str, Path]


def kinds_of_text(data: Path) -> dict[str, str]:
    """Return the texts of each kind, as one string."""
    readers: dict[str, Callable[[], Iterator[str]]] = {
        "news": lambda: _columns(data / "llm_merging/xsum.csv"),
        "stories": lambda: _columns(data / "cosmosqa/valid.csv"),
        "sums": lambda: _lines(data / "mergelm/gsm8k_test.jsonl"),
        "code": lambda: _lines(data / "mergelm/mbpp_test.jsonl"),
        "songci": lambda: _lines(data / "poetry/songci_simplified.jsonl"),
        "idioms": lambda: iter((data / "idioms/idioms.tsv").read_text().splitlines()),
        "riddles": lambda: _entries(data / "ruozhiba/ruozhiba_qa2449_gpt4o.json"),
        "herbs": lambda: _lines(data / "shennong/test_examples.jsonl"),
    }
    texts: dict[str, str] = {}
    for kind, read in readers.items():
        texts[kind] = "\n".join(read())[:400_000]
    return texts


def train_family(data: Path, out: Path) -> Trained:
    """Train the base and an expert for each kind of text.

    Of the first kinds the expert has seen half of the text, another one the other half, and a twin
    the same half in another order. What is in `out` already is taken as it is.
    """
    texts = {kind: torch.tensor(list(text.encode())) for kind, text in kinds_of_text(data).items()}
    base = out / "base"
    if not base.exists():
        _train(None, list(texts.values()), BASE_STEPS, BASE_RATE, 1).save_pretrained(base)
    experts: dict[str, Path] = {}
    twins: dict[str, Path] = {}

    def made(name: str, ids: torch.Tensor, seed: int) -> Path:
        folder = out / name
        if not folder.exists():
            _train(base, [ids], EXPERT_STEPS, EXPERT_RATE, seed).save_pretrained(folder)
        return folder

    for number, (kind, ids) in enumerate(texts.items()):
        half = ids[: len(ids) // 2]
        experts[kind] = made(kind, half, 100 + number)
        if number < WITH_SIBLINGS:
            experts[f"{kind}-2"] = made(f"{kind}-2", ids[len(half) :], 200 + number)
            twins[kind] = made(f"{kind}-twin", half, 300 + number)
    return Trained(base, experts, twins)


def trained_further(folder: Path, ids: torch.Tensor, steps: int, seed: int, out: Path) -> Path:
    """Train a checkpoint a little further on a text, and save it."""
    _train(folder, [ids], steps, EXPERT_RATE / 2, seed).save_pretrained(out)
    return out


def _train(
    start: Path | None, texts: list[torch.Tensor], steps: int, rate: float, seed: int
) -> LlamaForCausalLM:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    if start is None:
        model = LlamaForCausalLM(LlamaConfig(**CONFIG, dtype="float32"))
    else:
        model = LlamaForCausalLM.from_pretrained(start, dtype=torch.float32)
    draw = random.Random(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    model.train()
    for step in range(steps):
        rows = []
        for _ in range(BATCH):
            text = draw.choice(texts)
            at = draw.randrange(max(1, len(text) - LENGTH - 1))
            rows.append(text[at : at + LENGTH + 1])
        batch = torch.stack(rows)
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 10) * (1.05 - step / steps)
        optimizer.zero_grad(set_to_none=True)
        logits = model(input_ids=batch[:, :-1]).logits
        cross_entropy(logits.reshape(-1, logits.shape[-1]), batch[:, 1:].reshape(-1)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def _columns(path: Path) -> Iterator[str]:
    with path.open(newline="", encoding="utf-8") as file:
        yield from (" ".join(row.values()) for row in csv.DictReader(file))


def _lines(path: Path) -> Iterator[str]:
    for line in path.read_text(encoding="utf-8").splitlines():
        yield _text(json.loads(line))


def _entries(path: Path) -> Iterator[str]:
    yield from map(_text, json.loads(path.read_text(encoding="utf-8")))


def _text(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(map(_text, value.values()))
    if isinstance(value, list):
        return " ".join(map(_text, value))
    return str(value)
