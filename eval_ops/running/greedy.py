"""Continues many prompts with the likeliest tokens: what they begin with is read once.

A batch of prompts has one cache of keys and values. Rows that have ended are taken out of it, so
that one long answer does not make all others go on; the examples before every question of a
few-shot task are read for the first batch alone.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WORTH = 8
"""A beginning is read apart where that saves an eighth of a batch's tokens."""
SPARE = 4
"""Ended rows leave the cache when they are a quarter of it: taking them out copies the rest."""
HARMLESS = frozenset(
    {
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "transformers_version",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "min_p",
        "typical_p",
        "max_length",
        "max_new_tokens",
        "use_cache",
    }
)
"""Settings of generation_config.json that change no greedy answer whose length lm-eval limits."""


def is_plainly_greedy(model: Any, settings: dict[str, Any]) -> bool:
    """Whether `model.generate` gives the likeliest tokens alone, with a cache that keeps them all.

    `settings` are what lm-eval hands to it beside the prompt, the stop texts and the length.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    kept = DynamicCache(config=model.config).layers
    if any(type(layer) is not DynamicLayer for layer in kept):
        return False
    wanted = dict(settings)
    greedy = wanted.pop("do_sample", None) in (False, None)
    greedy &= wanted.pop("temperature", 0.0) in (0, None)
    stated = {
        key
        for key, value in model.generation_config.to_diff_dict().items()
        if value not in (None, False) and not key.startswith("_")
    }
    return greedy and not wanted and stated <= HARMLESS


class Beginning:
    """Remembers the keys and values of what the prompts of a task begin with."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._tokens: list[int] = []
        self._layers: list[tuple[Tensor, Tensor]] = []

    def rows(self, prompts: Sequence[Sequence[int]]) -> tuple[int, Any]:
        """Return how many tokens of the prompts a cache of one row each holds, and the cache.

        (0, None) where they have too little in common.
        """
        import torch
        from transformers.cache_utils import DynamicCache

        common = _common(prompts)
        known = _common([self._tokens, prompts[0]]) if self._tokens else 0
        if not self._is_worth(prompts, min(known, common)):
            if not self._is_worth(prompts, common):
                return 0, None
            tokens = torch.tensor([list(prompts[0][:common])], device=self._model.device)
            cache = self._model(tokens, use_cache=True, logits_to_keep=1).past_key_values
            self._tokens = list(prompts[0][:common])
            self._layers = [(layer.keys, layer.values) for layer in cache.layers]
            known = common
        length, n = min(known, common), len(prompts)

        def rows_of(tensor: "Tensor") -> "Tensor":
            return tensor[:, :, :length].expand(n, -1, -1, -1)

        layers = [(rows_of(keys), rows_of(values)) for keys, values in self._layers]
        return length, DynamicCache(layers)

    def _is_worth(self, prompts: Sequence[Sequence[int]], length: int) -> bool:
        saved = length * (len(prompts) - 1)
        return saved > 0 and WORTH * saved >= sum(map(len, prompts))


def _common(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens that all prompts begin with; each keeps one of its own."""
    ordered = sorted(map(tuple, prompts))
    first, last = ordered[0], ordered[-1]
    most = min(map(len, prompts)) - 1
    return next((n for n in range(max(most, 0)) if first[n] != last[n]), max(most, 0))


def continue_greedily(
    model: Any,
    prompts: Sequence[Sequence[int]],
    most: int,
    has_ended: Callable[[list[int]], bool],
    beginning: Beginning,
) -> list[list[int]]:
    """Return the new tokens of each prompt: `most`, or fewer where `has_ended` says so of them.

    `model` is a Hugging Face causal language model whose cache keeps every position.
    """
    import torch

    device = model.device
    with torch.no_grad():
        start, cache = beginning.rows(prompts)
        rest = [list(prompt[start:]) for prompt in prompts]
        longest = max(map(len, rest))
        tokens = torch.zeros(len(rest), longest, dtype=torch.long)
        mask = torch.zeros(len(rest), start + longest, dtype=torch.long)
        mask[:, :start] = 1
        for row, own in enumerate(rest):
            tokens[row, longest - len(own) :] = torch.tensor(own)
            mask[row, start + longest - len(own) :] = 1
        tokens, mask = tokens.to(device), mask.to(device)
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, start:]
        written: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        ended: set[int] = set()
        for step in range(most):
            output = model(
                tokens,
                attention_mask=mask,
                position_ids=places,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            cache = output.past_key_values
            chosen = output.logits[:, -1].argmax(dim=-1)
            for row, token in zip(rows, chosen.tolist(), strict=True):
                if row not in ended:
                    written[row].append(token)
                    if has_ended(written[row]):
                        ended.add(row)
            going = [place for place, row in enumerate(rows) if row not in ended]
            if not going or step == most - 1:
                break
            tokens, places = chosen.unsqueeze(1), places[:, -1:] + 1
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            if SPARE * (len(rows) - len(going)) >= len(rows):
                kept = torch.tensor(going, device=device)
                cache.batch_select_indices(kept)
                tokens, places, mask = tokens[kept], places[kept], mask[kept]
                rows = [rows[place] for place in going]
    return written
