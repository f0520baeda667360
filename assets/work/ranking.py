"""From scores in the store to the leaderboard and to champions. Knows no Dagster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.scoring import SCORES, read_scores, score_checkpoint
from assets.work.whole_models import live_models
from eval_ops.scores import SuiteScores
from eval_ops.scores.gates import Decision, decide, parse_gate
from eval_ops.scores.leaderboard import (
    Entry,
    choose,
    coefficient_points,
    rows,
    to_json,
    to_markdown,
)

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import CoefficientPoint, Kind, Row
    from eval_ops.suites import Suite
    from resources.store import Artifact, ArtifactStore, Ref

LEADERBOARD = "leaderboard"
MOST_SWEEPS, MOST_POINTS = 6, 24
"""Pictures of sweeps on a leaderboard, and points of one: some 40 kB each, kept in Dagster."""


@dataclass(frozen=True)
class RankedRecipe:
    """A ranked recipe has live candidates: partition keys, with expert set and coefficient.

    `plain_average` marks the recipe that every other one has to beat.
    """

    name: str
    suite: str
    plain_average: bool
    points: Mapping[str, tuple[str, str]]
    gate: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Contest:
    """A contest is everything that competes: live models and recipes, on their suites."""

    bases: Sequence[str]
    experts: Sequence[str]
    recipes: Sequence[RankedRecipe]
    suites: Mapping[str, Path]

    def recipe(self, name: str) -> RankedRecipe:
        """Find one recipe by name."""
        return next(recipe for recipe in self.recipes if recipe.name == name)


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


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard of every suite, in the store, and the sweeps of the recipes that rank first.

    `unscored` counts live candidates without scores on the present suite.
    """

    artifact: "Artifact"
    tables: Mapping[str, tuple["Row", ...]]
    sweeps: tuple[Sweep, ...]
    unscored: int


@dataclass(frozen=True)
class Promotion:
    """A promotion is what the gate said of a recipe's best candidate, and the champion then."""

    candidate: Entry
    decision: Decision | None
    champion: "Artifact | None"
    changed: bool
    reasons: tuple[str, ...]


def collect_entries(
    store: "ArtifactStore", contest: Contest, suite: "Suite"
) -> tuple[list[Entry], int]:
    """Collect every live model and candidate that is scored; count those that are not.

    Scores count when they are of the checkpoint that the name stands for now, on just this suite.
    """
    entries: list[Entry] = []
    unscored = 0
    models, scores = live_models(store), store.refs(f"model_scores/{suite.name}")
    groups: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("base", contest.bases),
        ("expert", contest.experts),
    )
    for kind, members in groups:
        for name in members:
            present = _scores_of(store, scores.get(name), models.get(name), suite)
            unscored += present is None
            if present is not None:
                entries.append(Entry(kind, name, present[0], digest=present[1]))
    for recipe in contest.recipes:
        if recipe.suite == suite.name:
            more, absent = _candidates(store, recipe, suite)
            entries += more
            unscored += absent
    return entries, unscored


def rank(store: "ArtifactStore", contest: Contest, run: str | None = None) -> Leaderboard:
    """Rank what is live on every suite, publish the tables, point `leaderboard` to them."""
    from eval_ops.suites import load_suite

    tables: dict[str, tuple[Row, ...]] = {}
    sweeps: list[Sweep] = []
    unscored = 0
    for name, path in contest.suites.items():
        entries, absent = collect_entries(store, contest, load_suite(path))
        tables[name] = rows(entries)
        unscored += absent
        sweeps += _sweeps(entries, tables[name])
    with store.attempt(LEADERBOARD) as attempt:
        for name, table in tables.items():
            attempt.write_bytes(f"{name}.json", to_json(table).encode())
            attempt.write_bytes(f"{name}.md", to_markdown(table).encode())
        artifact = attempt.publish()
    store.point(LEADERBOARD, None, LEADERBOARD, artifact.digest, run=run)
    return Leaderboard(artifact, tables, tuple(sweeps[:MOST_SWEEPS]), unscored)


def promote(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    device: str,
    threads: int,
    run: str | None = None,
) -> Promotion | None:
    """Put a recipe's best candidate before its gate; None when it has no scored candidate yet.

    The candidate is chosen on validation items and judged on test items. When the gate says yes,
    `<recipe>/champion` points to its checkpoint; otherwise the champion stays.
    """
    from eval_ops.suites import load_suite

    suite = load_suite(contest.suites[recipe.suite])
    entries, _ = collect_entries(store, contest, suite)
    experts = {entry.name: entry.scores for entry in entries if entry.kind == "expert"}
    candidates = [entry for entry in choose(entries) if entry.recipe == recipe.name]
    if not candidates:
        return None
    candidate = max(candidates, key=lambda entry: entry.scores.mean("validation").value)
    champion = names.resolve(store, names.champion(recipe.name))
    if champion is not None and champion.digest == candidate.digest:
        reasons = ("the best candidate is the champion already",)
        return Promotion(candidate, None, champion, False, reasons)
    incumbent = None
    if champion is not None:
        incumbent = score_checkpoint(store, champion, suite, device, threads).scores
    decision = decide(candidate.scores, experts, incumbent, parse_gate(recipe.gate))
    if decision.promote:
        champion = _crown(store, recipe, candidate, decision, run)
    return Promotion(candidate, decision, champion, decision.promote, tuple(decision.reasons))


def _crown(
    store: "ArtifactStore",
    recipe: RankedRecipe,
    candidate: Entry,
    decision: Decision,
    run: str | None,
) -> "Artifact":
    digest = str(candidate.digest)
    fields = {
        "experts": candidate.expert_set,
        "coefficient": candidate.coefficient,
        "test_mean": decision.candidate_mean,
        "reasons": list(decision.reasons),
    }
    store.point(names.champion(recipe.name), None, "checkpoint", digest, run=run, **fields)
    return store.get("checkpoint", digest)


def _candidates(
    store: "ArtifactStore", recipe: RankedRecipe, suite: "Suite"
) -> tuple[list[Entry], int]:
    kind = "average" if recipe.plain_average else "candidate"
    checkpoints = names.refs_of(store, names.merged_checkpoint(recipe.name), recipe.points)
    scores = names.refs_of(store, names.scores(recipe.name), recipe.points)
    entries: list[Entry] = []
    for partition, (experts, coefficient) in recipe.points.items():
        present = _scores_of(store, scores.get(partition), checkpoints.get(partition), suite)
        if present is not None:
            name, members = f"{recipe.name} {experts} {coefficient}", tuple(experts.split("+"))
            entries.append(
                Entry(kind, name, present[0], recipe.name, members, coefficient, present[1])
            )
    return entries, len(recipe.points) - len(entries)


def _scores_of(
    store: "ArtifactStore", scores: "Ref | None", checkpoint: "Ref | None", suite: "Suite"
) -> tuple[SuiteScores, str] | None:
    """Scores and checkpoint digest behind two refs, when they belong together and to the suite."""
    if scores is None or checkpoint is None:
        return None
    artifact = store.get(SCORES, scores.digest)
    scored, asked = artifact.manifest["checkpoint"]["digest"], artifact.manifest["suite"]["digest"]
    if (scored, asked) != (checkpoint.digest, suite.digest):
        return None
    return read_scores(artifact), scored


def _sweeps(entries: Sequence[Entry], table: Sequence["Row"]) -> list[Sweep]:
    """One sweep for each recipe that has one, in the order in which the recipes rank."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.recipe is not None:
            groups.setdefault((entry.recipe, entry.expert_set), []).append(entry)
    sweeps: dict[str, Sweep] = {}
    for row in table:
        expert_set = "+".join(sorted(row.experts))
        group = groups.get((row.recipe or "", expert_set), [])
        if len(group) > 1 and row.recipe is not None and row.recipe not in sweeps:
            best = sorted(group, key=lambda each: -each.scores.mean("validation").value)
            points = coefficient_points(best[:MOST_POINTS])
            hidden = len(group) - len(points)
            sweeps[row.recipe] = Sweep(row.recipe, expert_set, points, row.coefficient, hidden)
    return list(sweeps.values())
