"""What each expert is to learn, and what it is examined on.

The facts of a skill fall into set A and set B. Set A teaches the base model, and every expert by
replay, how questions of all three skills look. Set B is taught to the skill's own expert alone,
and only set B is examined, in a wording that no training row has: `exam`.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from examples.quickstart.facts import Fact, herb_facts, idiom_facts, times_facts

SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Skill:
    """One skill: `expert` and `benchmark` name it, `{}` in a wording stands for the subject.

    `shared` is set A; `own` is set B by split. No piece of knowledge is in two of them.
    """

    expert: str
    benchmark: str
    title: str
    wordings: tuple[str, ...]
    exam: str
    shared: tuple[Fact, ...]
    own: dict[str, tuple[Fact, ...]]

    @property
    def taught(self) -> tuple[Fact, ...]:
        """Set B as a whole, which the expert learns."""
        return tuple(fact for split in SPLITS for fact in self.own[split])


def quickstart_skills() -> tuple[Skill, ...]:
    """Return the three skills; always the same facts in the same sets."""
    return (
        _skill(
            ("herbs", "herb_class", "中药功效分类"),
            (
                "问：{}属于哪类药？答：",
                "{}是哪一类中药？答：",
                "中药{}的功效分类是：",
                "请问{}归为什么药？答：",
            ),
            "问：中药{}是哪类药？答：",
            _divide(herb_facts(), shared=154, validation=60, seed=1),
        ),
        _skill(
            ("idioms", "idiom_meaning", "成语"),
            (
                *("问：比喻{}的成语是什么？答：", "请问哪个成语形容{}？答："),
                *("{}，打一成语：", "意思是{}的成语是："),
            ),
            "问：哪个成语的意思是{}？答：",
            _divide(idiom_facts(), shared=55, validation=50, seed=2),
        ),
        _skill(
            ("times-table", "times_table", "九九表"),
            (
                *("问：{}乘{}等于多少？答：", "{}乘以{}是多少？答："),
                *("问：{}乘以{}得多少？答：", "{}乘{}的积是："),
            ),
            "问：{}乘以{}是多少？答：",
            _divide(times_facts(), shared=9, validation=13, seed=3),
        ),
    )


def _skill(
    names: tuple[str, str, str],
    wordings: tuple[str, ...],
    exam: str,
    sets: dict[str, tuple[Fact, ...]],
) -> Skill:
    expert, benchmark, title = names
    own = {split: sets[split] for split in SPLITS}
    return Skill(expert, benchmark, title, wordings, exam, sets["shared"], own)


def _divide(
    facts: Sequence[Fact], *, shared: int, validation: int, seed: int
) -> dict[str, tuple[Fact, ...]]:
    """Draw `shared` and `validation` pieces of knowledge; the rest is the test split."""
    keys = list(dict.fromkeys(fact.key for fact in facts))
    random.Random(seed).shuffle(keys)
    places = {
        "shared": keys[:shared],
        "validation": keys[shared : shared + validation],
        "test": keys[shared + validation :],
    }
    return {
        name: tuple(fact for key in place for fact in facts if fact.key == key)
        for name, place in places.items()
    }
