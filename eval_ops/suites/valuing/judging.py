"""Grades of what models wrote, by a judge: its prompts, and the grade in what it says.

A judge is asked as FastChat asks it (single-answer grading): question, reference where there is
one, and answer go in, an explanation and `[[grade]]` from 1 to 10 come out. A value is a tenth of
the grade. A judge that gives no grade is asked once more for the grade alone; then it is an error,
because a missing grade would silently change what is compared.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from eval_ops.errors import JudgeError
from eval_ops.scores import Sample
from eval_ops.suites.conversations import TURN, turns_of
from eval_ops.suites.reading.items import Item
from eval_ops.suites.reading.reference_answers import OWN_SYSTEM, OWN_TEMPLATE
from eval_ops.suites.suites import Benchmark

Message = Mapping[str, str]
Ask = Callable[[Sequence[Message]], str]
"""Messages (`role`, `content`) → what the judge says."""

HIGHEST = 10
ONCE_MORE = "Give the grade alone now, a number from 1 to 10 written as [[grade]]."

_GRADE = re.compile(r"\[\[\s*(\d{1,2}(?:\.\d+)?)\s*\]\]")
_BARE_GRADE = re.compile(r"\[\s*(\d{1,2}(?:\.\d+)?)\s*\]")


def grade_in(text: str) -> float | None:
    """Return the grade that a judge's words give, 1 to 10, or None."""
    found = _GRADE.search(text) or _BARE_GRADE.search(text)
    grade = float(found[1]) if found else 0.0
    return grade if 1 <= grade <= HIGHEST else None


def messages(
    benchmark: Benchmark, item: Item, turn: int, texts: Mapping[str, str]
) -> list[Message]:
    """Return what a judge is asked of one answer; `texts` holds answers by sample, `81/1`."""
    if not benchmark.judge_prompts:
        references = "".join(f"[A right answer]\n{text}\n\n" for text in item.answers)
        values = {
            "question": item.prompt,
            "references": references,
            "answer": texts.get(item.id, texts.get(f"{item.id}{TURN}1", "")),
        }
        return _asked(OWN_SYSTEM, OWN_TEMPLATE, values)
    of_prompts = {name: (system, template) for name, system, template in benchmark.judge_prompts}
    kind = "single-math-v1" if item.answers else "single-v1"
    first = texts.get(f"{item.id}{TURN}1", texts.get(item.id, ""))
    references = dict(zip(("ref_answer_1", "ref_answer_2"), item.answers, strict=False))
    if turn == 1:
        system, template = of_prompts[kind]
        return _asked(system, template, {"question": item.prompt, "answer": first, **references})
    system, template = of_prompts[f"{kind}-multi-turn"]
    values = {
        "question_1": item.prompt,
        "answer_1": first,
        "question_2": item.follow_up,
        "answer_2": texts[f"{item.id}{TURN}2"],
        **references,
    }
    return _asked(system, template, values)


def _asked(system: str, template: str, values: Mapping[str, str]) -> list[Message]:
    """Fill a template; what models wrote may hold braces, so its keys are replaced at once."""
    pattern = re.compile("|".join(re.escape(f"{{{key}}}") for key in values))
    filled = pattern.sub(lambda found: values[found[0][1:-1]], template)
    return [{"role": "system", "content": system}, {"role": "user", "content": filled}]


def graded(benchmark: Benchmark, samples: Sequence[Sample], ask: Ask) -> tuple[Sample, ...]:
    """Return a benchmark's samples with their grades, a tenth each. Raises JudgeError."""
    items = {item.id: item for item in benchmark.items}
    texts = {sample.item: sample.text or "" for sample in samples}
    done: list[Sample] = []
    for sample in samples:
        item, turn = turns_of(sample, texts)
        asked = messages(benchmark, items[item], turn, texts)
        said = ask(asked)
        grade = grade_in(said)
        if grade is None:
            again = {"role": "assistant", "content": said}, {"role": "user", "content": ONCE_MORE}
            said = ask([*asked, *again])
            grade = grade_in(said)
        if grade is None:
            raise JudgeError(
                f"benchmark '{benchmark.name}': the judge gives no grade to the answer to item"
                f" '{sample.item}', asked twice; it says {said[:200]!r}. Take another judge"
            )
        done.append(replace(sample, value=grade / HIGHEST))
    return tuple(done)
