"""Scores a model that somebody serves already, by the API that OpenAI's completions made common.

Requests go out from this process: what runs models elsewhere in this project has no network. The
model's tokenizer is a stranger's program all the same, so another process does its work. Such a
model has no digest: its scores can be shown and compared, but not stored as a checkpoint's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from eval_ops.running import AskedTokenizer, Progress
from eval_ops.scores import SuiteScores
from eval_ops.suites import harness
from eval_ops.suites.evaluator import Evaluator
from eval_ops.suites.suites import Suite


@dataclass(frozen=True)
class Endpoint:
    """A served model.

    `url` is the API's root, `http://host:8000/v1`; `model` what the server calls the model. With
    its `tokenizer`, completions are asked, of choices too; without, chat completions, which can
    only write. `token` authorizes, and is "" where none is asked for.
    """

    url: str
    model: str
    tokenizer: AskedTokenizer | None = None
    token: str = field(default="", repr=False)
    concurrent: int = 1
    max_length: int = 2048


def score_served(suite: Suite, endpoint: Endpoint, progress: Progress | None = None) -> SuiteScores:
    """Score a served model on a suite; `progress(done, total)` counts questions.

    Raises HarnessError where the server does not answer, or cannot give what a benchmark needs.
    """
    return _ServedEvaluator(suite, endpoint).score(endpoint.url, progress)


class _ServedEvaluator(Evaluator):
    """An evaluator whose model is served by others."""

    def __init__(self, suite: Suite, endpoint: Endpoint) -> None:
        super().__init__(suite)
        self._endpoint = endpoint

    def _run(
        self,
        folder: Path,
        progress: Progress | None,
        items: Mapping[str, Sequence[int]] | None,
        digest: str | None,
    ) -> SuiteScores:
        endpoint = self._endpoint
        where = f"model {endpoint.model} at {endpoint.url}"
        if self._lm is None:
            self._lm = harness.wrap_endpoint(
                endpoint.url,
                endpoint.model,
                endpoint.tokenizer,
                endpoint.token,
                endpoint.concurrent,
                endpoint.max_length,
                where,
            )
        return self._score(where, progress, items)

    def _counter(self) -> Callable[[str], int] | None:
        return self._count_tokens if self._endpoint.tokenizer else None
