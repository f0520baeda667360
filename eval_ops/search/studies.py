"""Studies: the trials of a search in order, which of them won, and their form in a store."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eval_ops.errors import ScoresError
from eval_ops.search.spaces import Point

STUDY_FORMAT = 1


@dataclass(frozen=True)
class Trial:
    """One point that was tried. `values` are its objectives on validation items, higher is better.

    A candidate that could not be merged or scored has no `values` and a `problem`. `digest` is the
    checkpoint's, `items` how many questions were put to it.
    """

    number: int
    point: Point
    values: tuple[float, ...] | None = None
    digest: str | None = None
    problem: str | None = None
    items: int = 0


@dataclass(frozen=True)
class Study:
    """The trials of one search on one expert set, in their order.

    `ended` says why there are no more: `trials`, `items`, `minutes` or `grid`. `centre` is the
    candidate between the trials that are about as good as the best one (`winners`), where it was
    scored; its number is that of the trial after the last. `centre_wins` says that it was taken.
    `chosen` is the trial that was taken instead of the best one: of a greedy soup the last that
    stayed.
    """

    sampler: str
    seed: int
    objectives: tuple[str, ...]
    trials: tuple[Trial, ...] = ()
    ended: str | None = None
    settings: dict[str, Any] = field(default_factory=dict[str, Any])
    centre: Trial | None = None
    centre_wins: bool = False
    chosen: int | None = None

    @property
    def winner(self) -> Trial | None:
        """Return what the search found: the centre where it won, else the chosen or best trial."""
        if self.centre_wins:
            return self.centre
        return self.best if self.chosen is None else self.trials[self.chosen]

    @property
    def front(self) -> tuple[Trial, ...]:
        """Return the trials that no other one beats in one objective and equals in the rest."""
        return pareto_front(self.trials)

    @property
    def best(self) -> Trial | None:
        """Return the best trial; None where no trial has values.

        It has the highest value; with several objectives the highest mean of them on the front. Of
        equals the first that was tried is best.
        """
        tried = [(sum(t.values) / len(t.values), t) for t in self.front if t.values]
        return max(tried, key=lambda each: (each[0], -each[1].number))[1] if tried else None

    def to_json(self) -> str:
        """Write the study, one trial a line."""
        head = {
            "format": STUDY_FORMAT,
            "sampler": self.sampler,
            "seed": self.seed,
            "objectives": self.objectives,
            "ended": self.ended,
            "settings": self.settings,
        }
        if self.centre is not None:
            head |= {"centre": vars(self.centre), "centre_wins": self.centre_wins}
        if self.chosen is not None:
            head["chosen"] = self.chosen
        lines = [json.dumps(vars(trial), ensure_ascii=False) for trial in self.trials]
        text = json.dumps(head, ensure_ascii=False)[:-1]
        return text + ', "trials": [\n' + ",\n".join(lines) + "\n]}\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Study":
        """Read what `to_json` wrote. ScoresError when it is something else."""
        try:
            content = json.loads(text)
            if content["format"] != STUDY_FORMAT:
                raise ScoresError(
                    f"the study has format {content['format']!r}; this version of Ronghe reads "
                    f"format {STUDY_FORMAT}: search again"
                )
            trials = tuple(_trial(row) for row in content["trials"])
            centre = content.get("centre")
            return cls(
                content["sampler"],
                content["seed"],
                tuple(content["objectives"]),
                trials,
                content["ended"],
                content["settings"],
                _trial(centre) if centre is not None else None,
                bool(content.get("centre_wins", False)),
                content.get("chosen"),
            )
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
            raise ScoresError(f"the study cannot be read: {problem}") from None


def pareto_front(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return the trials with values that no other trial dominates, in their order.

    One dominates another when it is nowhere below and somewhere above it. Equal ones all stay.
    """
    scored = [(trial, trial.values) for trial in trials if trial.values is not None]
    return tuple(
        trial
        for trial, values in scored
        if not any(_dominates(others, values) for _, others in scored)
    )


def _trial(row: dict[str, Any]) -> Trial:
    values = row.pop("values")
    return Trial(values=None if values is None else tuple(values), **row)


def _dominates(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
