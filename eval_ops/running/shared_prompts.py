"""Log-likelihoods of many answers to few prompts: each prompt goes through the model once.

In multiple choice the choices share their prompt, which is most of the tokens. The prompt's keys
and values are computed once and every choice continues from them:

    log p(answer | prompt) = Σ_t log softmax(logits_t)[answer_t],  t over the answer's tokens
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

Request = tuple[Any, list[int], list[int]]
"""(lm-eval's name of the request, tokens of the prompt, tokens of the answer)."""
Answer = tuple[float, bool]
"""(log-likelihood, whether every token was the likeliest)."""

SHARED_TOKENS = 4096
"""The most tokens whose keys and values are kept at a time: 224 MiB for a 7 B Qwen2 in bfloat16."""


def worth_sharing(requests: Sequence[Request], max_length: int) -> bool:
    """Whether `loglikelihoods` takes these requests, and saves work on them.

    It asks for prompts of two tokens or more that need no truncation to `max_length`. With
    answers of one token lm-eval itself asks each prompt once.
    """
    if max(len(answer) for _, _, answer in requests) < 2:
        return False
    if any(
        len(prompt) < 2 or len(prompt) + len(answer) > max_length + 1
        for _, prompt, answer in requests
    ):
        return False
    prompts = {tuple(prompt) for _, prompt, _ in requests}
    return len(requests) >= 2 * len(prompts)


def loglikelihoods(
    model: Any,
    requests: Sequence[Request],
    rows: int,
    report: Callable[[Request, Answer], None],
) -> list[Answer] | None:
    """Return one answer a request, in their order; None if the model's cache cannot be shared.

    `model` is a Hugging Face causal language model; at most about `rows` answers go through it at
    a time. `report` is told of every answer as it comes.
    """
    import torch

    results: list[Answer | None] = [None] * len(requests)
    with torch.no_grad():
        for prompts in _batches(requests, rows):
            cache = _read_prompts(model, [prompt for prompt, _ in prompts])
            if cache is None:
                return None
            owners = [row for row, (_, members) in enumerate(prompts) for _ in members]
            members = [index for _, members in prompts for index in members]
            cache.batch_select_indices(torch.tensor(owners, device=model.device))
            answers = _read_answers(model, [requests[index] for index in members], cache)
            for index, answer in zip(members, answers, strict=True):
                results[index] = answer
                report(requests[index], answer)
    return [answer for answer in results if answer is not None]


def _batches(
    requests: Sequence[Request], rows: int
) -> Iterator[list[tuple[tuple[int, ...], list[int]]]]:
    """Yield batches of (prompt, indices of its requests); prompts of a batch are equally long."""
    members: dict[tuple[int, ...], list[int]] = {}
    for index, (_, prompt, _) in enumerate(requests):
        members.setdefault(tuple(prompt), []).append(index)
    longest = max(len(answer) for _, _, answer in requests)
    batch: list[tuple[tuple[int, ...], list[int]]] = []
    answers = 0
    for prompt in sorted(members, key=lambda prompt: (-len(prompt), prompt)):
        more = len(members[prompt])
        fits = (
            answers + more <= rows and (answers + more) * (len(prompt) + longest) <= SHARED_TOKENS
        )
        if batch and (not fits or len(batch[0][0]) != len(prompt)):
            yield batch
            batch, answers = [], 0
        batch.append((prompt, members[prompt]))
        answers += more
    yield batch


def _read_prompts(model: Any, prompts: Sequence[tuple[int, ...]]) -> Any:
    """Return the keys and values of all prompt tokens but the last; None if they can't be shared.

    The prompts are equally long; the cache has one row a prompt, each layer's tensors are
    [prompts, heads, positions, width]. Only a cache that keeps every position of every layer can
    be continued by several answers.
    """
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    tokens = torch.tensor([prompt[:-1] for prompt in prompts], device=model.device)
    cache = model(tokens, use_cache=True, logits_to_keep=1).past_key_values
    plain = isinstance(cache, DynamicCache) and all(type(x) is DynamicLayer for x in cache.layers)
    return cache if plain else None


def _read_answers(model: Any, requests: Sequence[Request], cache: Any) -> list[Answer]:
    """Continue each row of the cache with the prompt's last token and the answer's tokens.

    `cache` holds one row a request. Inputs and targets are [requests, longest answer], padded on
    the right; logits are [requests, longest answer, vocabulary].
    """
    import torch

    longest = max(len(answer) for _, _, answer in requests)
    inputs = torch.zeros(len(requests), longest, dtype=torch.long)
    targets = torch.zeros(len(requests), longest, dtype=torch.long)
    real = torch.zeros(len(requests), longest, dtype=torch.bool)
    for row, (_, prompt, answer) in enumerate(requests):
        n = len(answer)
        inputs[row, :n] = torch.tensor([prompt[-1], *answer[:-1]])
        targets[row, :n] = torch.tensor(answer)
        real[row, :n] = True
    inputs, targets, real = (tensor.to(model.device) for tensor in (inputs, targets, real))
    logits = model(inputs, past_key_values=cache, use_cache=True).logits
    table = logits.log_softmax(dim=-1, dtype=torch.float32)
    log_probabilities = table.gather(2, targets.unsqueeze(-1)).squeeze(-1)
    sums = torch.where(real, log_probabilities, 0.0).sum(dim=1)
    greedy = ((logits.argmax(dim=-1) == targets) | ~real).all(dim=1)
    return [(float(value), bool(likely)) for value, likely in zip(sums, greedy, strict=True)]
