"""The scores of a sweep's coefficients, for pictures beside the leaderboard. Knows no Dagster."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eval_ops.scores.leaderboard import Entry, best_first, coefficient_points

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import CoefficientPoint, Row

MOST_SWEEPS, MOST_POINTS = 6, 24
"""Pictures of sweeps on a leaderboard, and points of one: some 40 kB each, kept in Dagster."""


@dataclass(frozen=True)
class Sweep:
    """The scores of one recipe's coefficients, on its expert set that ranks first.

    `points` are in the order of their numbers, `chosen` is the coefficient that the recipe's row of
    the leaderboard has. Of more than MOST_POINTS those with the best validation means are here, and
    `hidden` counts the others.
    """

    recipe: str
    expert_set: str
    points: tuple["CoefficientPoint", ...]
    chosen: str | None
    hidden: int


def sweeps_of(entries: Sequence[Entry], table: Sequence["Row"]) -> list[Sweep]:
    """Return one sweep for each recipe that has one, in the order in which the recipes rank."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.recipe is not None:
            groups.setdefault((entry.recipe, entry.expert_set), []).append(entry)
    sweeps: dict[str, Sweep] = {}
    for row in table:
        expert_set = "+".join(sorted(row.experts))
        group = groups.get((row.recipe or "", expert_set), [])
        if len(group) > 1 and row.recipe is not None and row.recipe not in sweeps:
            best = sorted(group, key=best_first)
            points = coefficient_points(best[:MOST_POINTS])
            hidden = len(group) - len(points)
            sweeps[row.recipe] = Sweep(row.recipe, expert_set, points, row.coefficient, hidden)
    return list(sweeps.values())
