"""lm-eval's Hugging Face model class made to do less for the same numbers.

- A (prompt, answer) pair is tokenized once, not once a checkpoint.
- Logits are computed for the last positions, where the answers are, not for the whole prompt: for
  a small model with a large vocabulary that is most of the work, and nearly all of the memory.
- What several questions begin with goes through the model once (shared_prompts.py).
- Greedy answers are written with one cache a batch, without the rows that have ended (greedy.py).
- A forward pass takes no more rows than a limit on tokens and logits allows.
- Probabilities are taken in float32, also where weights are of half precision.
- Its tokenizer is limited and its answers are counted (watched_model.py).
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false

import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from eval_ops.running.greedy import Beginning, continue_greedily, is_plainly_greedy
from eval_ops.running.shared_prompts import Answer, Request, loglikelihoods, worth_sharing
from eval_ops.running.watched_model import WatchedMethods

if TYPE_CHECKING:
    from torch import Tensor

BATCH_TOKENS = 16_384
"""The most tokens of one forward pass."""
BATCH_LOGITS = 1 << 26
"""About the most logits (rows × positions × vocabulary) of one forward pass: 256 MiB of float32."""
GENERATED_TOKENS = 16_384
"""About the most tokens whose keys and values are kept while a model writes."""
NEW_TOKENS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
LONGEST = 8
"""Texts that are tokenized to learn how long the longest is: those of the most letters."""
SLACK = 8
"""Positions more than the longest answer for which logits are expected: rows differ in length."""


def make_lean(model_class: Any) -> Any:
    """Return a subclass of lm-eval's `HFLM` (given, so that only harness.py imports lm-eval)."""
    return type("LeanLM", (LeanMethods, model_class), {})


class LeanMethods(WatchedMethods):
    """The methods that stand before those of lm-eval's `HFLM`; `super()` leads to that class.

    The constructor takes HFLM's arguments by keyword. `batch_size` is the most rows of one pass.
    """

    def __init__(self, *, batch_size: int, **settings: Any) -> None:
        super().__init__(batch_size=batch_size, softmax_dtype="float32", **settings)
        self._max_length = self.max_length
        self._most_rows = batch_size
        self._longest_answer = 0
        accepted = inspect.signature(self.model.forward).parameters
        self._trims = "logits_to_keep" in accepted
        self._shares = self._trims and "past_key_values" in accepted
        self._reads_trees = False
        self._beginning: Any = None
        self._settings = {"use_cache": False} if "use_cache" in accepted else {}

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Answer as HFLM does, in batches of its own size and without a progress bar."""
        self.batch_size_per_gpu = self._most_rows
        return super().loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Answer as HFLM does, without a progress bar, in batches that bounded memory holds."""
        longest = sorted((str(request.args[0]) for request in requests), key=len)[-LONGEST:]
        tokens = max(len(self.tok_encode(text)) for text in longest)
        tokens = min(tokens + self._most_new(requests), self.max_length)
        self.batch_size_per_gpu = max(1, min(self._most_rows, GENERATED_TOKENS // tokens))
        self._beginning = Beginning(self.model)
        try:
            return super().generate_until(requests, disable_tqdm=True)
        finally:
            self._beginning = None

    def _most_new(self, requests: Any) -> int:
        """The most tokens that a request lets a model write; lm-eval knows four names for it."""
        stated = (request.args[1].get(name) for request in requests for name in NEW_TOKENS)
        return max((int(most) for most in stated if most is not None), default=self.max_gen_toks)

    def _model_generate(
        self, context: "Tensor", max_length: int, stop: list[str], **settings: Any
    ) -> "Tensor":
        """Return `context` [rows, tokens], padded on the left, with what the model writes after it.

        The likeliest tokens come from greedy.py; any other way of writing is HFLM's.
        """
        import torch

        mask = settings.pop("attention_mask", None)
        model = self.model
        if mask is None or not self._shares or not is_plainly_greedy(model, settings):
            parent: Any = super()
            given = settings if mask is None else {"attention_mask": mask, **settings}
            return parent._model_generate(context, max_length, stop, **given)
        ends = model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends])
        tail = 2 + max(len(self.tok_encode(text, add_special_tokens=False)) for text in stop)

        def has_ended(tokens: list[int]) -> bool:
            text = self.tok_decode(tokens[-tail:], skip_special_tokens=False)
            return tokens[-1] in ends or any(each in text for each in stop)

        prompts = [row[seen.bool()].tolist() for row, seen in zip(context, mask, strict=True)]
        most = max_length - context.shape[1]
        written = continue_greedily(model, prompts, most, has_ended, self._beginning)
        longest = max(map(len, written))
        padding = self.tokenizer.pad_token_id
        padded = [tokens + [padding] * (longest - len(tokens)) for tokens in written]
        return torch.cat([context.cpu(), torch.tensor(padded)], dim=1)

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None
    ) -> Any:
        self._tokenizing.close()
        self._longest_answer = max(len(answer) for _, _, answer in requests)
        if self._shares and worth_sharing(requests, self.max_length):
            answers = loglikelihoods(
                self.model, requests, self._most_rows, self._report, self._reads_trees
            )
            if answers is not None:
                # What answers with NaN proves nothing about the next weights of this module.
                self._reads_trees = all(map(math.isfinite, (value for value, _ in answers)))
                return answers
            self._shares = False
        self.batch_size_per_gpu = min(self._most_rows, self._rows(requests))
        return super()._loglikelihood_tokens(requests, True, override_bs)

    def _report(self, request: Request, answer: Answer) -> None:
        """Count an answer of shared_prompts.py, as HFLM's own loops do theirs."""
        if request[0] is not None:
            self.cache_hook.add_partial("loglikelihood", request[0], answer)

    def _rows(self, requests: Sequence[Request]) -> int:
        """Return how many sequences fit the limits on tokens and logits of one forward pass."""
        longest = max(len(prompt) + len(answer) for _, prompt, answer in requests)
        positions = self._longest_answer + SLACK if self._trims else longest
        vocabulary = self.model.config.get_text_config().vocab_size
        return max(1, min(BATCH_TOKENS // longest, BATCH_LOGITS // (positions * vocabulary)))

    def _model_call(self, inps: "Tensor", attn_mask: Any = None, labels: Any = None) -> "Tensor":
        """Return logits [rows, kept, vocabulary] of the last positions of `inps` [rows, positions].

        Only answers are read. Rows are padded with zeros on the right; in the shortest the
        answer begins this many positions before the end: its padding + the longest answer.
        lm-eval counts positions from the end, so it needs no telling.
        """
        import torch

        if attn_mask is not None or labels is not None:
            parent: Any = super()
            return parent._model_call(inps, attn_mask=attn_mask, labels=labels)
        settings: dict[str, Any] = dict(self._settings)
        if self._trims:
            length = inps.shape[1]
            places = torch.arange(1, length + 1, device=inps.device)
            shortest = int((places * (inps != 0)).amax(dim=1).min())
            settings["logits_to_keep"] = min(length, length - shortest + self._longest_answer)
        with torch.no_grad():
            return self.model(inps, **settings).logits
