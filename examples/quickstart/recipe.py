"""How the quickstart models are trained: sizes, steps, rates, and the rows they are shown."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from examples.quickstart.facts import Fact
from examples.quickstart.skills import Skill

VERSION = 1
"""Raise this when the same recipe trains other weights; models on disk are then trained again."""

BASE = "tiny-base"
Row = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True)
class Shape:
    """Sizes of the Qwen2 model; `max_length` in tokens."""

    hidden: int = 128
    intermediate: int = 384
    layers: int = 3
    heads: int = 4
    kv_heads: int = 2
    max_length: int = 128


@dataclass(frozen=True)
class Schedule:
    """One training run. `replay` is the share of a batch that repeats set A.

    `epsilon` is AdamW's. At the usual 1e-8 Adam moves every weight by about the rate, also those
    with next to no gradient; three experts' worth of such noise then adds up in a merge. At 1e-3
    the weights that do not matter stay where the base has them, and the experts merge far better.
    """

    steps: int
    rate: float
    batch: int = 64
    replay: float = 0.0
    epsilon: float = 1e-8


@dataclass(frozen=True)
class Recipe:
    """The base model's and each expert's training; `seed` decides everything that is drawn."""

    shape: Shape = Shape()
    base: Schedule = Schedule(steps=150, rate=3e-3)
    experts: Mapping[str, Schedule] = field(
        default_factory=lambda: {
            "herbs": Schedule(steps=80, rate=2e-3, replay=0.5, epsilon=1e-3),
            "idioms": Schedule(steps=120, rate=3e-3, replay=0.5, epsilon=1e-3),
            "times-table": Schedule(steps=110, rate=3e-3, replay=0.5, epsilon=1e-3),
        }
    )
    seed: int = 0

    def schedule(self, model: str, revision: int) -> Schedule:
        """Return how a model is trained; an update (revision above 0) takes a fifth more steps."""
        schedule = self.base if model == BASE else self.experts[model]
        return replace(schedule, steps=schedule.steps * 6 // 5) if revision else schedule

    def seed_of(self, model: str, revision: int) -> int:
        """Return the seed of one training run, different for every model and revision."""
        name = f"{self.seed}/{model}/{revision}".encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:6], "big")


@dataclass(frozen=True)
class Lesson:
    """One model to train, in `upstream`/`model`; `revision` is 0, and one more at every update."""

    model: str
    revision: int
    upstream: Path
    recipe: Recipe
    threads: int
    fingerprint: str


def base_rows(skills: Sequence[Skill]) -> list[Row]:
    """Return set A of all skills in every wording, repeated so that each skill weighs the same."""
    parts = [fact_rows(skill, skill.shared) for skill in skills]
    longest = max(len(part) for part in parts)
    return [part[number % len(part)] for part in parts for number in range(longest)]


def fact_rows(skill: Skill, facts: Sequence[Fact]) -> list[Row]:
    """Return facts in every training wording of the skill (never the exam's)."""
    return [
        (wording.format(*fact.subject), fact.answer) for fact in facts for wording in skill.wordings
    ]


def all_text(skills: Sequence[Skill]) -> list[str]:
    """Return every text the tokenizer must know by character, exam wordings included."""
    texts: list[str] = []
    for skill in skills:
        for fact in (*skill.shared, *skill.taught):
            texts += [wording.format(*fact.subject) for wording in (*skill.wordings, skill.exam)]
            texts.append(fact.answer)
    return texts


def fingerprint(recipe: Recipe, skills: Sequence[Skill], threads: int) -> str:
    """Return a digest of everything that decides the weights, in 16 hexadecimal digits."""
    content = [VERSION, asdict(recipe), threads, base_rows(skills)]
    content += [fact_rows(skill, skill.taught) for skill in skills]
    content.append(sorted(set("".join(all_text(skills)))))
    text = json.dumps(content, ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
