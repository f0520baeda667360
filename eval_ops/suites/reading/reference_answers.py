"""Reference answers and judges' prompts in the form of FastChat's files (MT-Bench)."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from eval_ops.errors import ItemsError
from eval_ops.suites.reading.item_rows import FileReader, read_bytes, read_rows
from eval_ops.suites.reading.items import Item

PROMPTS = ("single-v1", "single-math-v1", "single-v1-multi-turn", "single-math-v1-multi-turn")
"""The prompts that grade one answer, to a first and to a second question."""

OWN_SYSTEM = "You grade answers. You are strict, and you look at nothing but the answer's quality."
OWN_TEMPLATE = (
    "Grade the answer to the question below from 1 (useless) to 10 (nothing is missing, nothing is"
    " wrong). Say in two sentences why, then end with the grade as [[grade]], for example"
    " [[7]].\n\n[Question]\n{question}\n\n{references}[Answer]\n{answer}\n[End of the answer]"
)
"""What a judge is asked of own items: question, right answers where there are some, answer."""


def read_references(path: Path, reader: FileReader, items: Sequence[Item]) -> tuple[Item, ...]:
    """Return items with the reference answers that a file has for them, one a turn.

    A row is `{"question_id": 101, "choices": [{"turns": ["…", "…"]}]}`. Raises ItemsError.
    """
    known: dict[str, tuple[str, ...]] = {}
    faults: list[str] = []
    for row in read_rows(path, read_bytes(path, reader), reader):
        turns = _turns(row.values)
        if row.fault or not turns:
            faults.append(row.fault or f"{row.place}: choices[0].turns must be a list of texts")
        known[str(row.values.get("question_id"))] = turns
    if faults:
        raise ItemsError(str(path), faults[:20])
    return tuple(replace(item, answers=known.get(item.id, ())) for item in items)


def _turns(row: Mapping[str, Any]) -> tuple[str, ...]:
    choices = row.get("choices")
    first = cast("list[Any]", choices)[0] if isinstance(choices, list) and choices else None
    turns = cast("dict[str, Any]", first).get("turns") if isinstance(first, dict) else None
    texts = cast("list[Any]", turns) if isinstance(turns, list) else []
    return tuple(texts) if all(isinstance(text, str) for text in texts) else ()


def read_judge_prompts(path: Path, reader: FileReader) -> tuple[tuple[str, str, str], ...]:
    """Return (name, system prompt, template) of the four prompts that grade a single answer.

    Raises ItemsError where one is missing.
    """
    found: dict[str, tuple[str, str, str]] = {}
    for row in read_rows(path, read_bytes(path, reader), reader):
        name = row.values.get("name")
        if name in PROMPTS:
            texts = row.values.get("system_prompt"), row.values.get("prompt_template")
            if all(isinstance(text, str) for text in texts):
                found[name] = (name, *cast("tuple[str, str]", texts))
    missing = [name for name in PROMPTS if name not in found]
    if missing:
        raise ItemsError(str(path), [f"holds no judge's prompt {', '.join(missing)}"])
    return tuple(found[name] for name in PROMPTS)
