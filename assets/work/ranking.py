"""From scores in the store to the leaderboard and to champions. Knows no Dagster."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.scoring import SCORES, open_scores, score_checkpoint
from assets.work.whole_models import live_models
from eval_ops.scores import SuiteScores
from eval_ops.scores.gates import Decision, decide, parse_gate
from eval_ops.scores.leaderboard import (
    Entry,
    KnownComparisons,
    choose,
    coefficient_points,
    known_comparisons,
    rows_with_sources,
    sources_to_json,
    to_json,
    to_markdown,
)

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import CoefficientPoint, Kind, Row
    from eval_ops.suites import Suite
    from resources.store import Artifact, ArtifactStore, Ref

LEADERBOARD = "leaderboard"
SOURCES = ".sources"
"""Ends the name of a leaderboard's file that says which scores its rows were made from."""
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
    store: "ArtifactStore",
    contest: Contest,
    suite: "Suite",
    recipes: Sequence[RankedRecipe] | None = None,
    known: KnownComparisons | None = None,
) -> tuple[list[Entry], int]:
    """Collect every live model and candidate that is scored; count those that are not.

    Scores count when they are of the checkpoint that the name stands for now, on just this suite.
    Of the contest's recipes only `recipes` are looked at, where they are given. The samples of
    scores that an earlier leaderboard has read, as `known` says, are read only where they are
    compared anew.
    """
    read = known.read if known else frozenset[str]()
    entries: list[Entry] = []
    unscored = 0
    models, scores = live_models(store), store.refs(f"model_scores/{suite.name}")
    groups: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("base", contest.bases),
        ("expert", contest.experts),
    )
    for kind, members in groups:
        for name in members:
            present = _scores_of(store, scores.get(name), models.get(name), suite, read)
            unscored += present is None
            if present is not None:
                found, digest, source = present
                entries.append(Entry(kind, name, found, digest=digest, source=source))
    for recipe in contest.recipes if recipes is None else recipes:
        if recipe.suite == suite.name:
            more, absent = _candidates(store, recipe, suite, read)
            entries += more
            unscored += absent
    return entries, unscored


def rank(store: "ArtifactStore", contest: Contest, run: str | None = None) -> Leaderboard:
    """Rank what is live on every suite, publish the tables, point `leaderboard` to them."""
    from assets.work.suite_files import load_suite
    from eval_ops.errors import EvalError
    from resources.errors import ResourceError

    tables: dict[str, tuple[Row, ...]] = {}
    sources: dict[str, str] = {}
    sweeps: list[Sweep] = []
    unscored = 0
    earlier = _earlier_leaderboard(store)
    for name, path in contest.suites.items():
        suite, known = load_suite(path), _known(earlier, name)
        try:
            entries, tables[name], sources[name], absent = _table(store, contest, suite, known)
        except (EvalError, ResourceError):
            # What was read for the earlier one may have rotted since: now all is read, each for
            # itself, so that the fault is that of one entry.
            entries, tables[name], sources[name], absent = _table(store, contest, suite, None)
        unscored += absent
        sweeps += _sweeps(entries, tables[name])
    with store.attempt(LEADERBOARD) as attempt:
        for name, table in tables.items():
            attempt.write_bytes(f"{name}.json", to_json(table).encode())
            attempt.write_bytes(f"{name}.md", to_markdown(table).encode())
            attempt.write_bytes(f"{name}{SOURCES}", sources[name].encode())
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
    from assets.work.suite_files import load_suite

    suite = load_suite(contest.suites[recipe.suite])
    known = _known(_earlier_leaderboard(store), suite.name)
    entries, _ = collect_entries(store, contest, suite, [recipe], known)
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


def _table(
    store: "ArtifactStore", contest: Contest, suite: "Suite", known: KnownComparisons | None
) -> tuple[list[Entry], tuple["Row", ...], str, int]:
    """Entries, rows, the rows' sources as a file, and the number of those without scores."""
    entries, absent = collect_entries(store, contest, suite, known=known)
    table = rows_with_sources(entries, known=known)
    own = {sources.own for _, sources in table}
    others = [each.source for each in entries if each.source and each.source not in own]
    written = sources_to_json([sources for _, sources in table], others)
    return entries, tuple(row for row, _ in table), written, absent


def _earlier_leaderboard(store: "ArtifactStore") -> "Artifact | None":
    """The leaderboard of today; None where there is none or it cannot be read."""
    from resources.errors import DamagedArtifactError, MissingArtifactError

    try:
        return store.resolve(LEADERBOARD)
    except (DamagedArtifactError, MissingArtifactError):
        return None


def _known(earlier: "Artifact | None", suite: str) -> KnownComparisons | None:
    """What the leaderboard of today says of a suite; None where it is not there as published."""
    from resources.errors import DamagedArtifactError

    if earlier is None or not {f"{suite}.json", f"{suite}{SOURCES}"} <= earlier.files.keys():
        return None
    try:
        table, sources = (earlier.read_bytes(f"{suite}{end}") for end in (".json", SOURCES))
    except DamagedArtifactError:
        return None
    return known_comparisons(table, sources)


def _candidates(
    store: "ArtifactStore", recipe: RankedRecipe, suite: "Suite", read: Set[str]
) -> tuple[list[Entry], int]:
    kind = "average" if recipe.plain_average else "candidate"
    checkpoints = names.refs_of(store, names.merged_checkpoint(recipe.name), recipe.points)
    scores = names.refs_of(store, names.scores(recipe.name), recipe.points)
    entries: list[Entry] = []
    for partition, (experts, coefficient) in recipe.points.items():
        pair = scores.get(partition), checkpoints.get(partition)
        present = _scores_of(store, *pair, suite, read)
        if present is not None:
            name, members = f"{recipe.name} {experts} {coefficient}", tuple(experts.split("+"))
            found, digest, source = present
            entries.append(
                Entry(kind, name, found, recipe.name, members, coefficient, digest, source)
            )
    return entries, len(recipe.points) - len(entries)


def _scores_of(
    store: "ArtifactStore",
    scores: "Ref | None",
    checkpoint: "Ref | None",
    suite: "Suite",
    read: Set[str],
) -> tuple[SuiteScores, str, str] | None:
    """Scores, checkpoint digest and scores' content digest behind two refs, when these belong
    together and to the suite."""
    if scores is None or checkpoint is None:
        return None
    artifact = store.get(SCORES, scores.digest)
    scored, asked = artifact.manifest["checkpoint"]["digest"], artifact.manifest["suite"]["digest"]
    if (scored, asked) != (checkpoint.digest, suite.digest):
        return None
    source = artifact.content_digest
    return open_scores(artifact, checked=source not in read), scored, source


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
