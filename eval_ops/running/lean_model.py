"""lm-eval's Hugging Face model class made to do less for the same numbers.

- A (prompt, answer) pair is tokenized once, not once a checkpoint.
- Logits are computed for the last positions, where the answers are, not for the whole prompt: for
  a small model with a large vocabulary that is most of the work, and nearly all of the memory.
- A prompt with several answers goes through the model once (shared_prompts.py).
- A forward pass takes no more rows than a limit on tokens and logits allows.
- Probabilities are taken in float32, also where weights are of half precision.
- It counts answers for a progress report and draws no progress bars.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eval_ops.running.shared_prompts import Answer, Request, loglikelihoods, worth_sharing

Progress = Callable[[int, int], None]

BATCH_TOKENS = 16_384
"""The most tokens of one forward pass."""
BATCH_LOGITS = 1 << 26
"""About the most logits (rows × positions × vocabulary) of one forward pass: 256 MiB of float32."""
CACHED_PAIRS = 20_000
REPORT_EVERY = 32


def make_lean(model_class: Any) -> Any:
    """Return a subclass of lm-eval's `HFLM` (given, so that only harness.py imports lm-eval)."""
    import torch

    class LeanLM(model_class):
        def __init__(self, *, batch_size: int, **settings: Any) -> None:
            super().__init__(batch_size=batch_size, softmax_dtype="float32", **settings)
            self._max_length = self.max_length
            self._most_rows = batch_size
            self._pairs: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
            self._longest_answer = 0
            accepted = inspect.signature(self.model.forward).parameters
            self._trims = "logits_to_keep" in accepted
            self._shares = self._trims and "past_key_values" in accepted
            self._settings = {"use_cache": False} if "use_cache" in accepted else {}

        def report_to(self, progress: Progress | None, tasks: Iterable[Any]) -> None:
            self.set_cache_hook(_Counter(progress, tasks))

        def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
            return super().loglikelihood(requests, disable_tqdm=True)

        def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
            self.batch_size_per_gpu = self._most_rows
            return super().loglikelihood_rolling(requests, disable_tqdm=True)

        def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
            self.batch_size_per_gpu = self._most_rows
            return super().generate_until(requests, disable_tqdm=True)

        def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
            pair = self._pairs.get((context, continuation))
            if pair is None:
                pair = super()._encode_pair(context, continuation)
                if len(self._pairs) < CACHED_PAIRS:
                    self._pairs[context, continuation] = pair
            return pair

        def _loglikelihood_tokens(
            self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None
        ) -> Any:
            self._longest_answer = max(len(answer) for _, _, answer in requests)
            rows = min(self._most_rows, self._rows(requests))
            if self._shares and worth_sharing(requests, self.max_length):
                answers = loglikelihoods(self.model, requests, rows, self._report)
                if answers is not None:
                    return answers
                self._shares = False
            self.batch_size_per_gpu = rows
            return super()._loglikelihood_tokens(requests, True, override_bs)

        def _report(self, request: Request, answer: Answer) -> None:
            if request[0] is not None:
                self.cache_hook.add_partial("loglikelihood", request[0], answer)

        def _rows(self, requests: Sequence[tuple[Any, list[int], list[int]]]) -> int:
            """How many sequences fit the limits on tokens and logits of one forward pass."""
            longest = max(len(prompt) + len(answer) for _, prompt, answer in requests)
            read = self._longest_answer + 8 if self._trims else longest
            vocabulary = self.model.config.get_text_config().vocab_size
            return max(1, min(BATCH_TOKENS // longest, BATCH_LOGITS // (read * vocabulary)))

        def _model_call(self, inps: Any, attn_mask: Any = None, labels: Any = None) -> Any:
            """Return logits [rows, kept, vocabulary] of the last positions only.

            Only answers are read. Rows are padded with zeros on the right; in the shortest the
            answer begins this many positions before the end: its padding + the longest answer.
            lm-eval counts positions from the end, so it needs no telling.
            """
            if attn_mask is not None or labels is not None:
                return super()._model_call(inps, attn_mask=attn_mask, labels=labels)
            settings = dict(self._settings)
            if self._trims:
                length = inps.shape[1]
                places = torch.arange(1, length + 1, device=inps.device)
                shortest = int((places * (inps != 0)).amax(dim=1).min())
                kept = length - shortest + self._longest_answer
                settings["logits_to_keep"] = min(length, kept)
            with torch.no_grad():
                return self.model(inps, **settings).logits

    return LeanLM


class _Counter:
    """Stands where lm-eval tells its response cache of every answer, and counts them."""

    def __init__(self, progress: Progress | None, tasks: Iterable[Any]) -> None:
        self._progress = progress
        self._tasks = tasks
        self._done = self._total = 0

    def add_partial(self, kind: str, request: Any, answer: Any) -> None:
        """Count one answer, and report now and then and at the end."""
        if self._progress is None:
            return
        if not self._total:
            self._total = sum(len(task.instances) for task in self._tasks)
        self._done += 1
        if self._done % REPORT_EVERY == 0 or self._done == self._total:
            self._progress(self._done, self._total)
