import random
import threading
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
import torch

from eval_ops.running.shared_prompts import Request, loglikelihoods
from eval_ops.running.side_by_side import in_order, sides_for

WriteCheckpoint = Callable[..., Path]


@pytest.fixture
def two_threads() -> Generator[None]:
    had = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(had)


def model_of(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder).eval()


def test_tasks_run_at_a_time_and_their_results_keep_the_order(two_threads: None) -> None:
    meet = threading.Barrier(2)
    threads: list[int] = []

    def task(number: int) -> int:
        meet.wait(60)  # broken unless two are under way
        threads.append(torch.get_num_threads())
        return number

    tasks = (lambda number=number: task(number) for number in range(8))
    assert list(in_order(tasks, 2)) == list(range(8))
    assert threads == [1] * 8
    assert torch.get_num_threads() == 2


def test_what_a_task_raises_is_raised_and_the_rest_is_not_begun(two_threads: None) -> None:
    begun: list[int] = []

    def task(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise ValueError("pass 1")
        return number

    with pytest.raises(ValueError, match="pass 1"):
        list(in_order((lambda number=number: task(number) for number in range(1000)), 2))
    assert len(begun) < 20
    assert torch.get_num_threads() == 2


def test_answers_are_those_of_one_pass_after_the_other(
    checkpoints: list[Path], two_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eval_ops.running import tree_reader

    model = model_of(checkpoints[0])
    draw = random.Random(0)
    requests: list[Request] = [
        (number, prompt, draw.choices(range(300), k=draw.randint(1, 6)))
        for number in range(40)
        for prompt in [[number, *draw.choices(range(300), k=draw.randint(1, 29))]]
        for _ in range(3)
    ]
    running: set[str] = set()
    model.register_forward_hook(lambda *_: running.add(threading.current_thread().name))
    monkeypatch.setattr(tree_reader, "PASS_TOKENS", 512)
    ours = loglikelihoods(model, requests, 24, lambda *_: None, proven=True)
    again = loglikelihoods(model, requests, 24, lambda *_: None, proven=True)
    assert ours is not None
    assert ours == again
    assert threading.current_thread().name not in running
    expected: list[float] = []
    with torch.no_grad():
        for _, prompt, answer in requests:
            table = model(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
            rows = table[len(prompt) - 1 : -1]
            expected.append(sum(rows[at, token].item() for at, token in enumerate(answer)))
    assert [value for value, _ in ours] == pytest.approx(expected, abs=2e-5)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_a_model_that_changes_while_it_runs_goes_through_one_pass_at_a_time(
    tmp_path: Path, write_checkpoint: WriteCheckpoint, checkpoints: list[Path], two_threads: None
) -> None:
    steady = model_of(checkpoints[0])
    assert sides_for(steady) == 2
    torch.set_num_threads(1)
    assert sides_for(steady) == 1
    torch.set_num_threads(2)
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    moving = model_of(write_checkpoint(tmp_path / "dynamic", 0, "llama", rope_parameters=rope))
    assert sides_for(moving) == 1
    other = model_of(write_checkpoint(tmp_path / "bloom", 0, "bloom", n_layer=1, n_head=4))
    assert sides_for(other) == 1
