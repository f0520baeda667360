"""What the lean model costs, by counts: rows, positions and logits of every forward pass."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval_ops.running import lean_model, make_lean, watched_model

WriteCheckpoint = Callable[..., Path]
Pass = tuple[int, int, int]


class Watched:
    """A lean model on a tiny checkpoint, and the (rows, positions, logits) of its passes."""

    def __init__(self, folder: Path, batch_size: int) -> None:
        from lm_eval.models.huggingface import HFLM
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.passes: list[Pass] = []
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.register_forward_hook(self._note, with_kwargs=True)
        self.lm = make_lean(HFLM)(
            pretrained=model,
            tokenizer=AutoTokenizer.from_pretrained(folder),
            batch_size=batch_size,
        )
        self.lm.report_to(None, [])
        self.tokenized = 0
        encode = self.lm.tok_encode

        def counted(*arguments: Any, **settings: Any) -> Any:
            self.tokenized += 1
            return encode(*arguments, **settings)

        self.lm.tok_encode = counted

    def ask(self, pairs: list[tuple[str, str]]) -> list[Pass]:
        from lm_eval.api.instance import Instance

        self.passes.clear()
        requests = [Instance("loglikelihood", {}, pair, n) for n, pair in enumerate(pairs)]
        assert len(self.lm.loglikelihood(requests)) == len(pairs)
        return list(self.passes)

    def _note(self, model: Any, inputs: Any, settings: Any, output: Any) -> None:
        tokens = inputs[0] if inputs else settings["input_ids"]
        self.passes.append((*tokens.shape, output.logits.shape[1]))


LONG = [(f"{number}{' ginseng' * 9}", " calms") for number in range(10)]
"""Prompts that begin differently, so none is shared."""


@pytest.fixture
def folder(checkpoints: list[Path]) -> Path:
    return checkpoints[0]


def test_logits_are_those_of_the_answers(folder: Path) -> None:
    watched = Watched(folder, 64)
    for rows, positions, logits in watched.ask(LONG):
        assert rows == 10
        assert positions > 20
        # The longest answer, and what shorter prompts are padded with: far from all positions.
        assert 1 <= logits <= 8


def test_a_pass_takes_no_more_rows_than_the_limits_allow(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [rows for rows, _, _ in Watched(folder, 4).ask(LONG)] == [4, 4, 2]
    whole = Watched(folder, 64).ask(LONG)[0][1]
    longest = whole + 1  # the answer's last token is not read
    monkeypatch.setattr(lean_model, "BATCH_TOKENS", 3 * longest)
    assert [rows for rows, _, _ in Watched(folder, 64).ask(LONG)] == [3, 3, 3, 1]
    monkeypatch.setattr(lean_model, "BATCH_TOKENS", 3 * longest - 1)
    assert [rows for rows, _, _ in Watched(folder, 64).ask(LONG)] == [2] * 5
    monkeypatch.setattr(lean_model, "BATCH_TOKENS", 1)
    assert [rows for rows, _, _ in Watched(folder, 64).ask(LONG)] == [1] * 10, "but one at least"


def test_a_pass_makes_no_more_logits_than_the_limit_allows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = Watched(folder, 64)
    vocabulary = watched.lm.model.config.vocab_size
    answer = max(len(watched.lm._encode_pair(*pair)[1]) for pair in LONG)
    positions = answer + lean_model.SLACK
    monkeypatch.setattr(lean_model, "BATCH_LOGITS", 5 * positions * vocabulary)
    assert [rows for rows, _, _ in watched.ask(LONG)] == [5, 5]
    monkeypatch.setattr(lean_model, "BATCH_LOGITS", 5 * positions * vocabulary - 1)
    assert [rows for rows, _, _ in watched.ask(LONG)] == [4, 4, 2]


def test_what_questions_begin_with_is_read_once(folder: Path) -> None:
    """Three prompts with one passage and two answers each: every token of their tree, no more."""
    watched = Watched(folder, 64)
    passage = "mint warms the lungs and " * 4
    pairs = [(f"{passage}{n} {'qi ' * n}", f"{a} x y") for n in range(3) for a in "ab"]
    watched.ask(pairs)  # the first time, the model is tried
    read = [[*pair[0], *pair[1][:-1]] for pair in watched.lm._pairs.values()]
    nodes = {tuple(tokens[:n]) for tokens in read for n in range(1, len(tokens) + 1)}
    passes = watched.ask(pairs)
    assert sum(rows * positions for rows, positions, _ in passes) == len(nodes)
    assert len(nodes) < sum(map(len, read)) / 3
    answers = [len(pair[1]) for pair in watched.lm._pairs.values()]
    assert sum(logits for _, _, logits in passes) < sum(answers), "siblings share their first place"


def test_a_pair_is_tokenized_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(folder, 64)
    watched.ask(LONG)
    first = watched.tokenized
    assert first > 0
    watched.ask(LONG)
    assert watched.tokenized == first
    monkeypatch.setattr(watched_model, "CACHED_PAIRS", 0)
    forgetful = Watched(folder, 64)
    forgetful.ask(LONG)
    forgetful.ask(LONG)
    assert forgetful.tokenized == 2 * first
