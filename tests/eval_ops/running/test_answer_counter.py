from types import SimpleNamespace

from eval_ops.running.answer_counter import REPORT_EVERY, AnswerCounter


def calls_after(answers: int, *questions: int) -> list[tuple[int, int]]:
    """What is reported when tasks of so many questions are given so many answers."""
    calls: list[tuple[int, int]] = []
    tasks = [SimpleNamespace(instances=[]) for _ in questions]
    counter = AnswerCounter(lambda done, total: calls.append((done, total)), tasks)
    for task, count in zip(tasks, questions, strict=True):
        task.instances += range(count)  # lm-eval builds its requests after the counter is there
    for _ in range(answers):
        counter.add_partial("loglikelihood", ("prompt", "answer"), (-1.0, False))
    return calls


def test_every_so_many_answers_and_the_last_are_reported() -> None:
    whole = 2 * REPORT_EVERY + 5
    assert calls_after(whole, 2 * REPORT_EVERY, 5) == [
        (REPORT_EVERY, whole),
        (2 * REPORT_EVERY, whole),
        (whole, whole),
    ]
    assert calls_after(REPORT_EVERY - 1, whole) == []
    assert calls_after(3, 3) == [(3, 3)]


def test_nobody_needs_to_listen() -> None:
    AnswerCounter(None, []).add_partial("loglikelihood", None, (0.0, True))
