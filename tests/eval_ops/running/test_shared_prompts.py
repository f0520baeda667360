import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from eval_ops.running.shared_prompts import Request, loglikelihoods, worth_sharing

WriteCheckpoint = Callable[..., Path]


def model_of(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def draw_requests(seed: int) -> list[Request]:
    """Prompts of 2 to 30 tokens with 2 to 5 answers of 1 to 6 tokens each, in mixed order."""
    draw = random.Random(seed)
    requests: list[Request] = []
    for number in range(17):
        prompt = [number, *draw.choices(range(300), k=draw.randint(1, 29))]
        for _ in range(draw.randint(2, 5)):
            requests.append((number, prompt, draw.choices(range(300), k=draw.randint(1, 6))))
    draw.shuffle(requests)
    return requests


def one_by_one(model: Any, requests: list[Request]) -> list[tuple[float, bool]]:
    answers: list[tuple[float, bool]] = []
    for _, prompt, answer in requests:
        with torch.no_grad():
            table = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        rows = table[len(prompt) - 1 : -1]
        value = sum(rows[place, token].item() for place, token in enumerate(answer))
        answers.append((value, rows.argmax(-1).tolist() == answer))
    return answers


@pytest.mark.parametrize("rows", [1, 6, 64])
def test_shared_prompts_give_the_same_answers(checkpoints: list[Path], rows: int) -> None:
    model = model_of(checkpoints[0])
    requests = draw_requests(0)
    reported: list[Request] = []
    ours = loglikelihoods(model, requests, rows, lambda request, _: reported.append(request))
    assert ours is not None
    expected = one_by_one(model, requests)
    assert [value for value, _ in ours] == pytest.approx([v for v, _ in expected], abs=2e-5)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in expected]
    assert sorted(map(str, reported)) == sorted(map(str, requests))


def test_greedy_answers_are_noticed(checkpoints: list[Path]) -> None:
    model = model_of(checkpoints[0])
    likely = model.generate(torch.tensor([[5, 6, 7]]), max_new_tokens=3, do_sample=False)
    answer = likely[0, 3:].tolist()
    requests: list[Request] = [(0, [5, 6, 7], answer), (0, [5, 6, 7], [*answer[:-1], 0])]
    answers = loglikelihoods(model, requests, 8, lambda request, answer: None)
    assert answers is not None
    assert [greedy for _, greedy in answers] == [True, False]


def test_a_cache_that_forgets_is_left_alone(
    tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    folder = write_checkpoint(tmp_path / "sliding", 0, "mistral", sliding_window=8)
    model = model_of(folder)
    assert loglikelihoods(model, draw_requests(1), 8, lambda request, answer: None) is None


def few_shot_requests(seed: int) -> list[Request]:
    """Questions after 700 tokens of examples, each with four letters and two sentences."""
    draw = random.Random(seed)
    examples = draw.choices(range(300), k=700)
    requests: list[Request] = []
    for number in range(9):
        prompt = [*examples, *draw.choices(range(300), k=draw.randint(3, 40))]
        requests += [(number, prompt, [letter]) for letter in (65, 66, 67, 68)]
        requests += [(number, prompt, draw.choices(range(300), k=9)) for _ in range(2)]
    requests.append((9, [7, 8, 9], [5]))
    return requests


class Counting:
    """Tokens that go through a model."""

    def __init__(self, model: Any) -> None:
        self.tokens = 0
        model.register_forward_hook(self._note, with_kwargs=True)

    def _note(self, model: Any, inputs: Any, settings: Any, output: Any) -> None:
        self.tokens += (inputs[0] if inputs else settings["input_ids"]).numel()


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_long_examples_before_all_questions_are_read_once(
    tmp_path: Path, write_checkpoint: WriteCheckpoint, attention: str
) -> None:
    folder = write_checkpoint(tmp_path / "long", 0, max_position_embeddings=1024)
    model = model_of(folder)
    model.set_attn_implementation(attention)
    requests = few_shot_requests(3)
    expected = one_by_one(model, requests)
    counting = Counting(model)
    ours = loglikelihoods(model, requests, 64, lambda *_: None, proven=True)
    assert ours is not None
    assert [value for value, _ in ours] == pytest.approx([v for v, _ in expected], abs=5e-5)
    assert counting.tokens < 700 + 9 * (40 + 2 * 9) + 100


def test_the_same_requests_give_the_same_bits(checkpoints: list[Path]) -> None:
    model = model_of(checkpoints[0])
    requests = draw_requests(2)
    first = loglikelihoods(model, requests, 64, lambda *_: None)
    mixed = list(range(len(requests)))
    random.Random(1).shuffle(mixed)
    again = loglikelihoods(model, [requests[i] for i in mixed], 64, lambda *_: None)
    assert first is not None
    assert again is not None
    assert [first[i] for i in mixed] == again
    part = loglikelihoods(model, requests[::3], 64, lambda *_: None)
    assert part is not None
    assert [v for v, _ in part] == pytest.approx([v for v, _ in first[::3]], abs=2e-5)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("falcon", {"alibi": True, "new_decoder_architecture": False}),
        ("bloom", {"n_layer": 1, "n_head": 4}),
        ("mamba", {"state_size": 4, "num_hidden_layers": 1}),
    ],
)
def test_models_that_take_no_positions_or_masks_are_left_alone(
    tmp_path: Path, write_checkpoint: WriteCheckpoint, kind: str, settings: dict[str, Any]
) -> None:
    model = model_of(write_checkpoint(tmp_path / kind, 0, kind, **settings))
    assert loglikelihoods(model, draw_requests(1), 8, lambda request, answer: None) is None


def test_broken_weights_answer_with_nan(checkpoints: list[Path]) -> None:
    model = model_of(checkpoints[0])
    model.model.norm.weight.data[0] = float("nan")
    answers = loglikelihoods(model, draw_requests(1), 8, lambda request, answer: None)
    assert answers is not None
    assert all(value != value for value, _ in answers)


def test_what_is_worth_sharing() -> None:
    assert worth_sharing([(0, [1, 2], [3, 4]), (0, [1, 2], [5])], max_length=3)
    assert not worth_sharing([(0, [1, 2], [3, 4]), (0, [1, 2], [5])], max_length=2)
    assert not worth_sharing([(0, [1, 2], [3]), (0, [1, 2], [5])], max_length=9)
    assert not worth_sharing([(0, [1, 2], [3, 4]), (0, [1, 3], [5, 6])], max_length=9)
    assert not worth_sharing([(0, [1], [3, 4]), (0, [1], [5, 6])], max_length=9)
