"""From scores in the store to the leaderboard and to champions. Knows no Dagster."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work.scoring import SCORES, read_scores, score_checkpoint
from assets.work.whole_models import live_models
from eval_ops.scores.gates import Decision, decide, parse_gate
from eval_ops.scores.leaderboard import (
    Entry,
    choose,
    coefficient_points,
    rows,
    to_json,
    to_markdown,
)
from eval_ops.scores.scores import SuiteScores

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import CoefficientPoint, Kind, Row
    from eval_ops.suites.suites import Suite
    from resources.store.artifact import Artifact
    from resources.store.artifact_store import ArtifactStore
    from resources.store.refs import Ref

LEADERBOARD = "leaderboard"


@dataclass(frozen=True)
class RankedRecipe:
    """A recipe's live candidates. `points` maps a partition key to (expert set, coefficient).

    `plain_average` marks the recipe that every other one has to beat.
    """

    name: str
    suite: str
    plain_average: bool
    points: Mapping[str, tuple[str, str]]
    gate: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class Contest:
    """Everything that competes: live models, live recipes, and the suites they are scored on."""

    bases: Sequence[str]
    experts: Sequence[str]
    recipes: Sequence[RankedRecipe]
    suites: Mapping[str, Path]

    def recipe(self, name: str) -> RankedRecipe:
        """One recipe by name."""
        return next(recipe for recipe in self.recipes if recipe.name == name)


@dataclass(frozen=True)
class Leaderboard:
    """The leaderboard of every suite, in the store. `unscored` counts live candidates without
    scores on the present suite."""

    artifact: "Artifact"
    tables: Mapping[str, tuple["Row", ...]]
    sweeps: Mapping[tuple[str, str], tuple["CoefficientPoint", ...]]
    unscored: int


@dataclass(frozen=True)
class Promotion:
    """What the gate said of a recipe's best candidate, and the champion after that."""

    candidate: Entry
    decision: Decision | None
    champion: "Artifact | None"
    changed: bool
    reasons: tuple[str, ...]


def collect_entries(
    store: "ArtifactStore", contest: Contest, suite: "Suite"
) -> tuple[list[Entry], int]:
    """Every live model and candidate that is scored, and how many are not.

    Scores count when they are of the checkpoint that the name stands for now, on just this suite.
    """
    entries: list[Entry] = []
    unscored = 0
    models, known = live_models(store), store.refs(f"model_scores/{suite.name}")
    groups: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("base", contest.bases),
        ("expert", contest.experts),
    )
    for kind, names in groups:
        for name in names:
            found = _scores_of(store, known.get(name), models.get(name), suite)
            unscored += found is None
            if found is not None:
                entries.append(Entry(kind, name, found[0], digest=found[1]))
    for recipe in contest.recipes:
        if recipe.suite == suite.name:
            more, absent = _candidates(store, recipe, suite)
            entries += more
            unscored += absent
    return entries, unscored


def rank(store: "ArtifactStore", contest: Contest, run: str | None = None) -> Leaderboard:
    """Rank what is live on every suite, publish the tables, point `leaderboard` to them."""
    from assets.work.suite_files import load_suite

    tables: dict[str, tuple[Row, ...]] = {}
    sweeps: dict[tuple[str, str], tuple[CoefficientPoint, ...]] = {}
    unscored = 0
    for name, path in contest.suites.items():
        entries, absent = collect_entries(store, contest, load_suite(path))
        tables[name] = rows(entries)
        unscored += absent
        for (recipe, experts), group in _sweeps(entries).items():
            sweeps[recipe, experts] = coefficient_points(group)
    with store.attempt(LEADERBOARD) as attempt:
        for name, table in tables.items():
            attempt.write_bytes(f"{name}.json", to_json(table).encode())
            attempt.write_bytes(f"{name}.md", to_markdown(table).encode())
        artifact = attempt.publish()
    store.point(LEADERBOARD, None, LEADERBOARD, artifact.digest, run=run)
    return Leaderboard(artifact, tables, sweeps, unscored)


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
    `champion/<recipe>` points to its checkpoint; otherwise the champion stays.
    """
    from assets.work.suite_files import load_suite

    suite = load_suite(contest.suites[recipe.suite])
    entries, _ = collect_entries(store, contest, suite)
    experts = {entry.name: entry.scores for entry in entries if entry.kind == "expert"}
    own = [entry for entry in choose(entries) if entry.recipe == recipe.name]
    if not own:
        return None
    candidate = max(own, key=lambda entry: entry.scores.mean("validation").value)
    champion = store.resolve(f"champion/{recipe.name}")
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
    store.point(f"champion/{recipe.name}", None, "checkpoint", digest, run=run, **fields)
    return store.get("checkpoint", digest)


def _candidates(
    store: "ArtifactStore", recipe: RankedRecipe, suite: "Suite"
) -> tuple[list[Entry], int]:
    kind = "average" if recipe.plain_average else "candidate"
    checkpoints = store.refs(f"merged_checkpoint/{recipe.name}")
    known = store.refs(f"benchmark_scores/{recipe.name}")
    entries: list[Entry] = []
    for partition, (experts, coefficient) in recipe.points.items():
        found = _scores_of(store, known.get(partition), checkpoints.get(partition), suite)
        if found is not None:
            name = f"{recipe.name} {experts} {coefficient}"
            scores, digest = found
            names = tuple(experts.split("+"))
            entries.append(Entry(kind, name, scores, recipe.name, names, coefficient, digest))
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


def _sweeps(entries: Sequence[Entry]) -> dict[tuple[str, str], list[Entry]]:
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in entries:
        if entry.recipe is not None and entry.coefficient != "default":
            groups.setdefault((entry.recipe, entry.expert_set), []).append(entry)
    return groups
