"""Log-likelihoods of many answers: what several of them begin with goes through the model once.

In multiple choice the choices share their prompt, prompts share a passage, and all questions of a
few-shot task share its examples. All sequences of tokens together are a tree (prefix_tree.py),
which tree_reader.py reads. The numbers are those of the sequences one by one:

    log p(answer | prompt) = Σ_t log softmax(logits_t)[answer_t],  t over the answer's tokens
"""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from eval_ops.running.prefix_tree import common_lengths, tree_size
from eval_ops.running.tree_reader import Answer, Request, TreeReader, look_up, read_tokens

MOST_REQUESTS = 16_384
"""Requests that make one tree: their tokens are in memory once more. Neighbours share the most."""
TRIED_TOKENS = 256
"""Tokens of a prompt, and of an answer, that a model is tried with."""
WORTH = 1.25
"""How many times more tokens the plain way must read for the tree to be worth its checks."""
NEAR = {"torch.float32": 1e-3, "torch.float64": 1e-3}
HALF_NEAR = 0.1
"""How far a token's log-probability may be from the plain way's, on average; 0.1 in half precision.

A model that takes another mask or other positions than it is given is off by more than 1.
"""


def worth_sharing(requests: Sequence[Request], max_length: int) -> bool:
    """Whether `loglikelihoods` takes these requests, and saves work on them.

    It asks for prompts of two tokens or more that need no truncation to `max_length`. What
    lm-eval itself would read is counted against the tree's tokens; with answers of one token it
    asks each prompt once.
    """
    if any(
        len(prompt) < 2 or len(prompt) + len(answer) > max_length + 1
        for _, prompt, answer in requests
    ):
        return False
    sequences = sorted({read_tokens(request) for request in requests[:MOST_REQUESTS]})
    plain = sum(map(len, sequences))
    return plain >= WORTH * tree_size(sequences, common_lengths(sequences))


def loglikelihoods(
    model: Any,
    requests: Sequence[Request],
    rows: int,
    report: Callable[[Request, Answer], None],
    proven: bool = False,
) -> list[Answer] | None:
    """Return one answer a request, in their order; None if the model cannot read a tree.

    `model` is a Hugging Face causal language model; at most about `rows` answers go through it at
    a time. `report` is told of every answer as it comes. With `proven` the model is not tried
    before. The same requests give the same bits; among others an answer's last bits may differ.
    """
    import torch

    with torch.no_grad():
        if not proven and not reads_trees(model, requests):
            return None
        results: list[Answer | None] = [None] * len(requests)
        for first in range(0, len(requests), MOST_REQUESTS):
            part = requests[first : first + MOST_REQUESTS]
            for members, answers in TreeReader(model, part, rows).answers():
                for index, answer in zip(members, answers, strict=True):
                    results[first + index] = answer
                    report(part[index], answer)
    return [answer for answer in results if answer is not None]


def reads_trees(model: Any, requests: Sequence[Request]) -> bool:
    """Whether a model gives the same answers when its requests are read as a tree.

    It must keep every position of every layer, and take the mask and the positions that it is
    given. What says so cannot be trusted alone, so three of the requests are tried both ways.
    """
    accepted = inspect.signature(model.forward).parameters
    needed = ("attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep")
    if not all(name in accepted for name in needed) or model.get_output_embeddings() is None:
        return False
    if getattr(model.config, "_attn_implementation", None) not in ("sdpa", "eager"):
        return False
    longest = max(requests, key=lambda request: len(request[1]) + len(request[2]))
    siblings = (r for r in requests if r[1] == longest[1] and r[2] != longest[2])
    strangers = (r for r in requests if r[1] != longest[1])
    tried = [longest, *[r for r in (next(siblings, None), next(strangers, None)) if r]]
    tried = [_shortened(request) for request in tried]
    plain = [_plain_answer(model, request) for request in tried]
    expected = [value for value in plain if value is not None]
    if len(expected) < len(plain):
        return False
    try:
        found = list(TreeReader(model, tried, len(tried)).trial())
    except Exception:  # a model that does not know such masks raises what it likes
        return False
    near = NEAR.get(str(model.dtype), HALF_NEAR)
    return all(
        abs(value - expected[index]) <= near * len(tried[index][2])
        or not np.isfinite(expected[index])  # broken weights are told by the answers themselves
        for index, value in found
    )


def _shortened(request: Request) -> Request:
    """A request of few enough tokens for a trial, whose mask grows by squares."""
    name, prompt, answer = request
    return name, prompt[-TRIED_TOKENS:], answer[:TRIED_TOKENS]


def _plain_answer(model: Any, request: Request) -> float | None:
    """Return one request's log-likelihood, read alone; None if the model's cache forgets.

    Only a cache that keeps every position of every layer says that every token sees all before it.
    """
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    _, _, answer = request
    tokens = torch.tensor([read_tokens(request)], device=model.device)
    output = model(tokens, use_cache=True, logits_to_keep=len(answer))
    cache = output.past_key_values
    if not isinstance(cache, DynamicCache):
        return None
    if any(type(layer) is not DynamicLayer for layer in cache.layers):
        return None
    values, _ = look_up(output.logits[0], np.arange(len(answer)), np.array(answer))
    return float(values.sum())
