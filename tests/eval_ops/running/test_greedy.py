"""Texts are those of lm-eval's own class; cost is the tokens that go through the model."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval_ops.running import greedy, make_lean

WriteCheckpoint = Callable[..., Path]
WORDS = ["ginseng", "mint", "warms", "cools", "lungs", "qi"]


def loaded(folder: Path) -> dict[str, Any]:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    return {"pretrained": model, "tokenizer": AutoTokenizer.from_pretrained(folder)}


def their_model(**settings: Any) -> Any:
    """A model of lm-eval's own class, whose registry hides its arguments from a type checker."""
    from lm_eval.models.huggingface import HFLM

    made: Any = HFLM
    return made(**settings)


def requests_for(prompts: list[str], **settings: Any) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance("generate_until", {}, (text, settings), n) for n, text in enumerate(prompts)]


class Counting:
    """Tokens that go through a model."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        self.handle = model.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, model: Any, inputs: Any, settings: Any, output: Any) -> None:
        self.tokens += (inputs[0] if inputs else settings["input_ids"]).numel()


def prompts_of(n: int, examples: int) -> list[str]:
    draw = random.Random(1)
    shots = " ".join(draw.choices(WORDS, k=examples))
    return [f"{shots} {' '.join(draw.choices(WORDS, k=draw.randint(1, 12)))}" for _ in range(n)]


@pytest.mark.parametrize("kind", ["qwen2", "mistral"])
@pytest.mark.parametrize(
    "settings",
    [
        {"until": ["e", " qi"], "max_gen_toks": 12},
        {"until": "\n\n", "max_new_tokens": 9, "temperature": 0.0, "do_sample": False},
        {"until": ["s"], "max_gen_toks": 6, "repetition_penalty": 1.5},
    ],
)
def test_texts_are_those_of_lm_eval(
    tmp_path: Path, write_checkpoint: WriteCheckpoint, kind: str, settings: dict[str, Any]
) -> None:
    from lm_eval.models.huggingface import HFLM

    model = loaded(write_checkpoint(tmp_path / kind, 0, kind, sliding_window=16))
    theirs = their_model(**model, batch_size=3)
    lean = make_lean(HFLM)(**model, batch_size=5)
    lean.report_to(None, [])
    for examples in (0, 30):
        requests = requests_for(prompts_of(11, examples), **settings)
        assert lean.generate_until(requests) == theirs.generate_until(requests, disable_tqdm=True)


def test_examples_are_read_once_and_ended_rows_leave(checkpoints: list[Path]) -> None:
    from lm_eval.models.huggingface import HFLM

    model = loaded(checkpoints[0])
    lean = make_lean(HFLM)(**model, batch_size=4)
    lean.report_to(None, [])
    requests = requests_for(prompts_of(12, 40), until=["e"], max_gen_toks=20)
    counting = Counting(model["pretrained"])
    texts = lean.generate_until(requests)
    lengths = [len(lean.tok_encode(request.args[0])) for request in requests]
    assert counting.tokens < sum(lengths) / 2 + 12 * 20
    counting.handle.remove()
    plain = Counting(model["pretrained"])
    assert their_model(**model, batch_size=4).generate_until(requests, disable_tqdm=True) == texts
    assert counting.tokens < plain.tokens / 2


def test_what_is_not_plainly_greedy(checkpoints: list[Path]) -> None:
    model = loaded(checkpoints[0])["pretrained"]
    assert greedy.is_plainly_greedy(model, {"do_sample": False, "temperature": 0.0})
    assert greedy.is_plainly_greedy(model, {})
    assert not greedy.is_plainly_greedy(model, {"do_sample": True, "temperature": 0.7})
    assert not greedy.is_plainly_greedy(model, {"temperature": 0.7})
    assert not greedy.is_plainly_greedy(model, {"num_beams": 2})
    model.generation_config.repetition_penalty = 1.1
    assert not greedy.is_plainly_greedy(model, {})
