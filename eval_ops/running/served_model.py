"""lm-eval's client of an OpenAI-compatible server, made to refuse what would be silently wrong."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import math
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from eval_ops.errors import HarnessError
from eval_ops.running.answer_counter import AnswerCounter, Progress
from eval_ops.running.asked_tokenizer import AskedTokenizer


def make_served(client_class: Any) -> Any:
    """Return a subclass of lm-eval's `LocalCompletionsAPI` or `LocalChatCompletion`."""
    return type("ServedLM", (ServedMethods, client_class), {})


class ServedMethods:
    """The methods that stand before those of lm-eval's client; `super()` is that class.

    The constructor takes the client's arguments by keyword, but for its tokenizer: lm-eval would
    load one in this process, so `tokenizer` takes its place, and prompts are sent as its tokens.
    None is for chat completions, which send text. `token` authorizes requests and is "" where the
    server asks for none.
    """

    def __init__(self, *, token: str, tokenizer: AskedTokenizer | None, **settings: Any) -> None:
        self._token = token
        client: Any = self
        parent: Any = super()
        parent.__init__(tokenizer_backend=None, **settings)
        if tokenizer is not None:
            client.tokenizer, client.tokenizer_backend = tokenizer, "huggingface"
            client.tokenized_requests = True

    @property
    def header(self) -> dict[str, str]:
        """What is sent with each request; no token is taken from the environment."""
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def report_to(self, progress: Progress | None, tasks: Iterable[Any]) -> None:
        """Tell `progress` of the answers to lm-eval's `tasks` from here on."""
        parent: Any = self
        parent.set_cache_hook(AnswerCounter(progress, tasks))

    def parse_logprobs(
        self,
        outputs: Any,
        tokens: Sequence[Sequence[int]] | None = None,
        ctxlens: Sequence[int] | None = None,
        **named: Any,
    ) -> list[tuple[float, bool]]:
        """Read log-likelihoods as the client does, from answers that hold every token's.

        A server that does not give back the prompt's would score every choice with 0. Raises
        HarnessError.
        """
        choices = [
            choice
            for output in (outputs if isinstance(outputs, list) else [outputs])
            for choice in sorted(output["choices"], key=itemgetter("index"))
        ]
        for choice, asked, start in zip(choices, tokens or [], ctxlens or [], strict=True):
            found = _log_probabilities(choice)
            # The first token has none, and one more than was asked has been written.
            values = found[start : len(asked)]
            if len(found) != len(asked) + 1 or not all(map(_is_number, values)):
                raise HarnessError(
                    f"the server answers {len(asked)} tokens of a prompt with"
                    f" {len(found)} log-probabilities where there must be one for each and one"
                    " more; it does not give back the prompt (`echo` with `logprobs`) or has"
                    " another tokenizer. vLLM and llama.cpp's own server do; benchmarks that"
                    " generate text can be scored without"
                )
        parent: Any = super()
        return parent.parse_logprobs(outputs, tokens=tokens, ctxlens=ctxlens, **named)


def _log_probabilities(choice: Mapping[str, Any]) -> Sequence[Any]:
    held = choice.get("logprobs")
    values = held.get("token_logprobs") if isinstance(held, Mapping) else None
    return values if isinstance(values, list) else []


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not math.isnan(value)
