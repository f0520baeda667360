"""lm-eval's Hugging Face model class as it is, but watched: tokenizers limited, answers counted.

What it computes is what lm-eval's own command computes with the same batch size, digit by digit,
in half precision too. lean_model.py builds on it, and does less for the same numbers.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportAttributeAccessIssue=false, reportUnknownArgumentType=false

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from eval_ops.running.answer_counter import AnswerCounter, Progress
from eval_ops.running.foreign_work import limited

CACHED_PAIRS = 20_000
"""Tokenized pairs that are kept: a suite asks some thousand, and each takes about a kilobyte."""


def make_watched(model_class: Any) -> Any:
    """Return a subclass of lm-eval's `HFLM` (given, so that only harness.py imports lm-eval)."""
    return type("WatchedLM", (WatchedMethods, model_class), {})


class WatchedMethods:
    """The methods that stand before those of lm-eval's `HFLM`; `super()` is that class.

    The constructor takes HFLM's arguments by keyword.
    """

    def __init__(self, **settings: Any) -> None:
        parent: Any = super()
        self._tokenizing = ExitStack()
        self._pairs: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        parent.__init__(**settings)

    def report_to(self, progress: Progress | None, tasks: Iterable[Any]) -> None:
        """Tell `progress` of the answers to lm-eval's `tasks` from here on."""
        self.set_cache_hook(AnswerCounter(progress, tasks))

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Answer as HFLM does, without a progress bar; all texts are tokenized before."""
        parent: Any = super()
        letters = sum(len(str(text)) for request in requests for text in request.args)
        with self._tokenizing:
            self._tokenizing.enter_context(limited(letters))
            return parent.loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Answer as HFLM does, without a progress bar."""
        parent: Any = super()
        return parent.loglikelihood_rolling(requests, disable_tqdm=True)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> Any:
        """Answer as HFLM does, without a progress bar."""
        parent: Any = super()
        return parent.generate_until(requests, disable_tqdm=True)

    def _loglikelihood_tokens(
        self, requests: Any, disable_tqdm: bool = True, override_bs: int | None = None
    ) -> Any:
        parent: Any = super()
        self._tokenizing.close()
        return parent._loglikelihood_tokens(requests, True, override_bs)

    def tok_encode(self, string: str, *given: Any, **named: Any) -> Any:
        """Tokenize as HFLM does, within the limits of foreign work."""
        parent: Any = super()
        with limited(len(string)):
            return parent.tok_encode(string, *given, **named)

    def tok_batch_encode(self, strings: Sequence[str], *given: Any, **named: Any) -> Any:
        """Tokenize as HFLM does, within the limits of foreign work."""
        parent: Any = super()
        with limited(sum(map(len, strings))):
            return parent.tok_batch_encode(strings, *given, **named)

    def tok_decode(self, tokens: Any, *given: Any, **named: Any) -> Any:
        """Make text of tokens as HFLM does, within the limits of foreign work."""
        parent: Any = super()
        with limited(len(tokens) if isinstance(tokens, list) else 1):
            return parent.tok_decode(tokens, *given, **named)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        pair = self._pairs.get((context, continuation))
        if pair is None:
            parent: Any = super()
            pair = parent._encode_pair(context, continuation)
            if len(self._pairs) < CACHED_PAIRS:
                self._pairs[context, continuation] = pair
        return pair
