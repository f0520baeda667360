"""From scores in the store to the leaderboard and to champions. Knows no Dagster."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.kept_rows import (
    Broken,
    EarlierBoard,
    all_marked,
    marked,
    notes,
    read_board,
    without_notes,
)
from assets.work.scoring import SCORES, read_scores, score_checkpoint
from assets.work.whole_models import live_models
from eval_ops.errors import EvalError, ScoresError
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
from resources.errors import DamagedArtifactError, MissingArtifactError

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
    """A contest is everything that competes: live models and recipes, on their suites.

    What is `broken` is no competitor that left: its rows stay, marked.
    """

    bases: Sequence[str]
    experts: Sequence[str]
    recipes: Sequence[RankedRecipe]
    suites: Mapping[str, Path]
    broken: Broken = field(default_factory=Broken)

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

    `unscored` counts live candidates without scores on the present suite. `texts` are the tables as
    Markdown, those that could only be kept among them. `problems` say what could not be read or
    ranked, by its name.
    """

    artifact: "Artifact"
    tables: Mapping[str, tuple["Row", ...]]
    sweeps: tuple[Sweep, ...]
    unscored: int
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    problems: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Collected:
    """What was collected for one suite: entries, how many have no scores, what is damaged.

    `damaged` goes by the name of a ref or of a checkpoint.
    """

    entries: list[Entry]
    unscored: int
    damaged: Mapping[str, str]


@dataclass(frozen=True)
class Held:
    """A promotion that was not decided: the champion stays, because of the `reason`.

    It is a `fault` where something could not be read, and not where the catalog is broken.
    """

    reason: str
    champion: "Artifact | None"
    fault: bool


@dataclass(frozen=True)
class Promotion:
    """A promotion is what the gate said of a recipe's best candidate, and the champion then."""

    candidate: Entry
    decision: Decision | None
    champion: "Artifact | None"
    changed: bool
    reasons: tuple[str, ...]


def collect_entries(
    store: "ArtifactStore", contest: Contest, suite: "Suite", earlier: EarlierBoard | None = None
) -> Collected:
    """Collect every live model and candidate that is scored; count those that are not.

    Scores count when they are of the checkpoint that the name stands for now, on just this suite.
    Of broken recipes those count that have rows on the `earlier` leaderboard.
    """
    entries: list[Entry] = []
    unscored, members = 0, (*contest.bases, *contest.experts)
    models, damaged = live_models(store, members)
    scores = names.table_of(store, f"model_scores/{suite.name}", members)
    damaged = {**damaged, **scores.damaged}
    groups: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("base", contest.bases),
        ("expert", contest.experts),
    )
    for kind, group in groups:
        for name in group:
            pair = scores.refs.get(name), models.get(name)
            present = _scores_of(store, *pair, suite, name, damaged)
            unscored += present is None
            if present is not None:
                entries.append(Entry(kind, name, present[0], digest=present[1]))
    recipes = [recipe for recipe in contest.recipes if recipe.suite == suite.name]
    for name in contest.broken.recipes if earlier is not None else ():
        points = earlier.points(suite.name, name)
        recipes.append(RankedRecipe(name, suite.name, earlier.is_average(suite.name, name), points))
    for recipe in recipes:
        more, absent = _candidates(store, recipe, suite, damaged)
        entries += more
        unscored += absent
    return Collected(entries, unscored, damaged)


def rank(store: "ArtifactStore", contest: Contest, run: str | None = None) -> Leaderboard:
    """Rank what is live on every suite, publish the tables, point `leaderboard` to them.

    A suite that cannot be ranked keeps the table that it has. What cannot be read is named in the
    leaderboard's `problems`, and the rest is ranked.
    """
    from assets.work.suite_files import load_suite

    earlier, broken = read_board(store, LEADERBOARD), contest.broken
    tables: dict[str, tuple[Row, ...]] = {}
    written: dict[str, tuple[str, str]] = {}
    problems: dict[str, str] = {}
    sweeps: list[Sweep] = []
    unscored = 0
    for name in sorted({*contest.suites, *earlier.suites_of(broken.recipes)}):
        try:
            reason = _why_kept(contest, name)
            if reason is None:
                found = collect_entries(store, contest, load_suite(contest.suites[name]), earlier)
                tables[name] = rows(found.entries)
                problems.update(found.damaged)
                unscored += found.unscored
                sweeps += _sweeps(found.entries, tables[name])
        except (EvalError, DamagedArtifactError) as error:
            reason = problems[f"suite {name}"] = f"{type(error).__name__}: {error}"
        if reason is None:
            table = marked(to_json(tables[name]), broken)
            written[name] = table, to_markdown(tables[name]) + notes(table)
        elif name in earlier.rows:
            table = all_marked(earlier.rows[name], reason)
            written[name] = table, without_notes(earlier.texts[name]) + notes(table)
    with store.attempt(LEADERBOARD) as attempt:
        for name, (table, text) in written.items():
            attempt.write_bytes(f"{name}.json", table.encode())
            attempt.write_bytes(f"{name}.md", text.encode())
        if not written:
            attempt.write_bytes("nothing.md", b"No suite can be ranked.\n")
        artifact = attempt.publish()
    store.point(LEADERBOARD, None, LEADERBOARD, artifact.digest, run=run)
    texts = {name: text for name, (_, text) in written.items()}
    return Leaderboard(artifact, tables, tuple(sweeps[:MOST_SWEEPS]), unscored, texts, problems)


def _why_kept(contest: Contest, suite: str) -> str | None:
    """Why a suite's table can only be kept as it is; None where it can be made anew."""
    if suite in contest.broken.suites:
        return contest.broken.suites[suite]
    if suite in contest.suites:
        return None
    return "; ".join(contest.broken.recipes.values())  # they alone are scored on it


def promote(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    device: str,
    threads: int,
    run: str | None = None,
) -> Promotion | Held | None:
    """Put a recipe's best candidate before its gate; None when it has no scored candidate yet.

    The candidate is chosen on validation items and judged on test items. When the gate says yes,
    `<recipe>/champion` points to its checkpoint; otherwise the champion stays. It stays undecided
    where the suite is broken, or where what the candidates are compared with cannot be read whole.
    """
    from assets.work.suite_files import load_suite

    champion = names.resolve(store, names.champion(recipe.name))
    if recipe.suite in contest.broken.suites:
        return Held(contest.broken.suites[recipe.suite], champion, fault=False)
    suite = load_suite(contest.suites[recipe.suite])
    alone = dataclasses.replace(contest, recipes=[recipe])
    collected = collect_entries(store, alone, suite)
    if collected.damaged:
        told = (f"{name}: {problem}" for name, problem in collected.damaged.items())
        return Held("; ".join(told), champion, fault=True)
    entries = collected.entries
    experts = {entry.name: entry.scores for entry in entries if entry.kind == "expert"}
    candidates = [entry for entry in choose(entries) if entry.recipe == recipe.name]
    if not candidates:
        return None
    candidate = max(candidates, key=lambda entry: entry.scores.mean("validation").value)
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
    store: "ArtifactStore", recipe: RankedRecipe, suite: "Suite", damaged: dict[str, str]
) -> tuple[list[Entry], int]:
    kind = "average" if recipe.plain_average else "candidate"
    merged, scored = names.merged_checkpoint(recipe.name), names.scores(recipe.name)
    checkpoints = names.table_of(store, merged, recipe.points)
    scores = names.table_of(store, scored, recipe.points)
    damaged.update(checkpoints.damaged)
    damaged.update(scores.damaged)
    entries: list[Entry] = []
    for partition, (experts, coefficient) in recipe.points.items():
        pair, what = (scores.refs.get(partition), checkpoints.refs.get(partition)), partition
        present = _scores_of(store, *pair, suite, f"{scored} [{what}]", damaged)
        if present is not None:
            name, members = f"{recipe.name} {experts} {coefficient}", tuple(experts.split("+"))
            entries.append(
                Entry(kind, name, present[0], recipe.name, members, coefficient, present[1])
            )
    return entries, len(recipe.points) - len(entries)


def _scores_of(
    store: "ArtifactStore",
    scores: "Ref | None",
    checkpoint: "Ref | None",
    suite: "Suite",
    name: str,
    damaged: dict[str, str],
) -> tuple[SuiteScores, str] | None:
    """Scores and checkpoint digest behind two refs, when they belong together and to the suite.

    What is wrong with scores that cannot be read goes into `damaged` under the `name`.
    """
    if scores is None or checkpoint is None:
        return None
    try:
        artifact = store.get(SCORES, scores.digest)
        scored = artifact.manifest["checkpoint"]["digest"]
        if (scored, artifact.manifest["suite"]["digest"]) != (checkpoint.digest, suite.digest):
            return None
        return read_scores(artifact), scored
    except (DamagedArtifactError, MissingArtifactError, ScoresError) as error:
        damaged[name] = f"{type(error).__name__}: {error}"
    except (KeyError, TypeError):
        damaged[name] = f"the manifest of scores {scores.digest} does not say of what they are"
    return None


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
