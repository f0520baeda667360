"""Trains the quickstart models on the CPU: a Qwen2 of under a million weights.

The loss counts the answer alone, not the question. Same rows, recipe and thread count: same bits.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from examples.quickstart.recipe import Row, Schedule, Shape

IGNORED = -100
WARM_UP = 10


@dataclass(frozen=True)
class EncodedRows:
    """Rows as token ids, padded on the right: `inputs` and `targets` are [rows, length].

    `targets` is the next token where that belongs to the answer, IGNORED elsewhere.
    """

    inputs: Tensor
    targets: Tensor
    lengths: Tensor


def encode_rows(rows: Sequence[Row], tokenizer: Qwen2Tokenizer) -> EncodedRows:
    """Encode question and answer of each row, closed by the end token."""
    end = int(tokenizer.eos_token_id)
    pairs = [(tokenizer.encode(q), [*tokenizer.encode(a), end]) for q, a in rows]
    lengths = torch.tensor([len(q) + len(a) - 1 for q, a in pairs])
    inputs = torch.full((len(rows), int(lengths.max())), end)
    targets = torch.full_like(inputs, IGNORED)
    for number, (question, answer) in enumerate(pairs):
        ids = torch.tensor([*question, *answer])
        inputs[number, : len(ids) - 1] = ids[:-1]
        targets[number, len(question) - 1 : len(ids) - 1] = torch.tensor(answer)
    return EncodedRows(inputs, targets, lengths)


def new_model(shape: Shape, tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2ForCausalLM:
    """Return an untrained float32 model; the global random state is left as it was."""
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=shape.max_length,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(config)


def load_model(folder: Path) -> Qwen2ForCausalLM:
    """Return the float32 model in a folder."""
    return Qwen2ForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)


def fit(
    model: Qwen2ForCausalLM,
    rows: EncodedRows,
    replay: EncodedRows | None,
    schedule: Schedule,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> None:
    """Train `model` in place for `schedule.steps` steps; `progress` is called after each.

    `schedule.replay` of every batch is drawn from `replay` where that is given.
    """
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=schedule.rate,
        betas=(0.9, 0.95),
        eps=schedule.epsilon,
        weight_decay=0.0,
    )
    replayed = round(schedule.batch * schedule.replay) if replay is not None else 0
    fresh = _without_end(rows, schedule.batch - replayed, generator)
    again = _without_end(replay, replayed, generator) if replay is not None else None
    model.train()
    for step in range(schedule.steps):
        batch = [next(fresh), *([next(again)] if again is not None else [])]
        for group in optimizer.param_groups:
            group["lr"] = schedule.rate * _share_of_rate(step, schedule.steps)
        optimizer.zero_grad(set_to_none=True)
        _loss(model, *_join(batch)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        progress()
    model.eval()


def _without_end(
    rows: EncodedRows, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (inputs, targets) of `size` rows, each row once before any comes again."""
    order = torch.empty(0, dtype=torch.long)
    while True:
        while len(order) < size:
            order = torch.cat([order, torch.randperm(len(rows.inputs), generator=generator)])
        picked, order = order[:size], order[size:]
        length = int(rows.lengths[picked].max()) if size else 0
        yield rows.inputs[picked, :length], rows.targets[picked, :length]


def _join(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Put parts of a batch under each other, padded to one length."""
    length = max(inputs.shape[1] for inputs, _ in parts)
    pad = torch.nn.functional.pad
    return (
        torch.cat([pad(inputs, (0, length - inputs.shape[1])) for inputs, _ in parts]),
        torch.cat([pad(t, (0, length - t.shape[1]), value=IGNORED) for _, t in parts]),
    )


def _loss(model: Qwen2ForCausalLM, inputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of the answers; padding follows them, so causal attention needs no mask."""
    hidden = model.model(input_ids=inputs).last_hidden_state
    answers = targets != IGNORED
    return cross_entropy(model.lm_head(hidden[answers]), targets[answers])


def _share_of_rate(step: int, steps: int) -> float:
    """Warm up over the first steps, then fall along a cosine to a twentieth."""
    return min(1.0, (step + 1) / WARM_UP) * (0.525 + 0.475 * math.cos(math.pi * step / steps))
