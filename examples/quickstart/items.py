"""Multiple-choice items from set B: one right answer and three answers to other questions."""

import json
import random
from collections.abc import Sequence
from typing import Any

from examples.quickstart.facts import Fact
from examples.quickstart.skills import SPLITS, Skill

CHOICES = 4


def benchmark_items(skill: Skill, seed: int = 0) -> list[dict[str, Any]]:
    """Return the items of a skill: {id, split, prompt, choices, answer}, one a fact of set B.

    The choice is to be appended to the prompt as it is. Every wrong choice is the answer to some
    other fact of set B, so an expert has learnt all four; no choice begins with another one, which
    would make the shorter the likelier whatever the model.
    """
    rng = random.Random(f"{skill.benchmark}/{seed}")
    answers = [fact.answer for fact in skill.taught]
    items: list[dict[str, Any]] = []
    for split in SPLITS:
        for number, fact in enumerate(skill.own[split], start=1):
            choices = [fact.answer, *_wrong_choices(fact, answers, rng)]
            rng.shuffle(choices)
            items.append(
                {
                    "id": f"{skill.benchmark}-{split}-{number:03d}",
                    "split": split,
                    "prompt": skill.exam.format(*fact.subject),
                    "choices": choices,
                    "answer": choices.index(fact.answer),
                }
            )
    return items


def to_lines(items: Sequence[dict[str, Any]]) -> str:
    """Write items as JSON lines."""
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def _wrong_choices(fact: Fact, answers: Sequence[str], rng: random.Random) -> list[str]:
    """Draw wrong answers as often as they are right elsewhere, so no answer stands out."""
    wrong: list[str] = []
    pool = [answer for answer in answers if answer not in fact.rivals]
    while len(wrong) < CHOICES - 1:
        fit = [a for a in pool if not any(_overlap(a, b) for b in (fact.answer, *wrong))]
        wrong.append(rng.choice(fit))
    return wrong


def _overlap(one: str, other: str) -> bool:
    """Say whether one text begins with the other."""
    return one.startswith(other) or other.startswith(one)
