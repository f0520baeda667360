"""From scores in the store to the leaderboard and to champions. Knows no Dagster."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.merging.virtual_checkpoints import materialize
from assets.work.ranking import collecting, kept_rows
from assets.work.ranking.collecting import (
    UNREADABLE,
    Collected,
    Contest,
    RankedRecipe,
    unreadable_answers,
)
from assets.work.ranking.imports import write_beside
from assets.work.ranking.kept_rows import EarlierBoard, all_marked, marked, notes
from assets.work.ranking.licensing import why_unpublishable
from assets.work.ranking.optimism import optimism_of
from assets.work.ranking.sweeps import MOST_SWEEPS, Sweep, sweeps_of
from assets.work.records.champion_history import set_aside
from assets.work.records.demotion import clean, settle, why_none
from assets.work.scoring.candidates import score_virtual
from assets.work.scoring.scoring import Scoring
from eval_ops.errors import EvalError
from eval_ops.scores.gates import Decision, decide, parse_gate
from eval_ops.scores.leaderboard import (
    Entry,
    KnownComparisons,
    best_first,
    choose,
    known_comparisons,
    rows_with_sources,
    sources_to_json,
    to_json,
    to_markdown,
)
from resources.errors import DamagedArtifactError, MissingArtifactError, ResourceError

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import Row
    from eval_ops.suites import Suite
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore

LEADERBOARD = "leaderboard"
SOURCES = ".sources"
"""Ends the name of a leaderboard's file that says which scores its rows were made from."""


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
    left: int = 0
    """Candidates that were left early, and have no row."""


@dataclass(frozen=True)
class Held:
    """A promotion that was not decided: the champion stays, because of the `reason`.

    It is a `fault` where something could not be read, and not where the catalog is broken. With
    `licences` the gate said yes, and the licences of the inputs do not go together.
    """

    reason: str
    champion: "Artifact | None"
    fault: bool
    licences: bool = False


@dataclass(frozen=True)
class Promotion:
    """A promotion is what the gate said of a recipe's best candidate, and the champion then.

    `optimism` says how much the choice among so many flatters a new champion's validation mean.
    """

    candidate: Entry
    decision: Decision | None
    champion: "Artifact | None"
    changed: bool
    reasons: tuple[str, ...]
    optimism: str | None = None


def rank(store: "ArtifactStore", contest: Contest, run: str | None = None) -> Leaderboard:
    """Rank what is live on every suite, publish the tables, point `leaderboard` to them.

    A suite that cannot be ranked keeps the table that it has. What cannot be read is named in the
    leaderboard's `problems`, and the rest is ranked.
    """
    with collecting.collector_paused():
        return _rank_all(store, contest, run)


def _rank_all(store: "ArtifactStore", contest: Contest, run: str | None) -> Leaderboard:
    before, broken = _earlier_leaderboard(store), contest.broken
    earlier = kept_rows.read_board(before) if broken else EarlierBoard()
    tables: dict[str, tuple[Row, ...]] = {}
    written: dict[str, dict[str, str]] = {}
    problems: dict[str, str] = {}
    sweeps: list[Sweep] = []
    unscored = left = 0
    for name in sorted({*contest.suites, *earlier.suites_of(broken.recipes)}):
        reason = _why_kept(contest, name)
        if reason is None:
            try:
                found, tables[name], sources = _ranked(store, contest, name, before, earlier)
            except (EvalError, DamagedArtifactError) as error:
                reason = problems[f"suite {name}"] = f"{type(error).__name__}: {error}"
                earlier = kept_rows.read_board(before)
            else:
                problems.update(found.damaged)
                problems |= {k: each.loose for k, each in found.left.items() if each.loose}
                left += len(found.left)
                unscored += found.unscored
                sweeps += sweeps_of(found.entries, tables[name])
                rows = marked(to_json(tables[name]), broken) if broken else to_json(tables[name])
                text = to_markdown(tables[name]) + (notes(rows) if broken else "")
                written[name] = {".json": rows, ".md": text, SOURCES: sources}
        if reason is not None and name in earlier.rows:
            rows = all_marked(earlier.rows[name], reason)
            text = kept_rows.without_notes(earlier.texts[name]) + notes(rows)
            written[name] = {".json": rows, ".md": text}
    with store.attempt(LEADERBOARD) as attempt:
        for name, files in written.items():
            for end, text in files.items():
                attempt.write_bytes(f"{name}{end}", text.encode())
        write_beside(attempt, contest.imported, bool(written))
        artifact = attempt.publish()
    store.point(LEADERBOARD, None, LEADERBOARD, artifact.digest, run=run)
    texts = {name: files[".md"] for name, files in written.items()}
    shown = tuple(sweeps[:MOST_SWEEPS])
    return Leaderboard(artifact, tables, shown, unscored, texts, problems, left)


def _why_kept(contest: Contest, suite: str) -> str | None:
    """Why a suite's table can only be kept as it is; None where it can be made anew."""
    if suite in contest.broken.suites:
        return contest.broken.suites[suite]
    if suite in contest.suites:
        return None
    return "; ".join(contest.broken.recipes.values())  # they alone are scored on it


def _ranked(
    store: "ArtifactStore",
    contest: Contest,
    name: str,
    before: "Artifact | None",
    earlier: EarlierBoard,
) -> tuple[Collected, tuple["Row", ...], str]:
    """What was collected for a suite, its rows, and the rows' sources as a file."""
    from assets.work.suite_files import load_suite

    suite = load_suite(contest.suites[name])
    known = _known(before, name)
    try:
        return _table(store, contest, suite, known, earlier)
    except (EvalError, ResourceError):
        # What was read for the earlier one may have rotted since: now all is read, each for itself,
        # so that the fault is that of one entry.
        return _table(store, contest, suite, None, earlier)


def _table(
    store: "ArtifactStore",
    contest: Contest,
    suite: "Suite",
    known: KnownComparisons | None,
    earlier: EarlierBoard,
) -> tuple[Collected, tuple["Row", ...], str]:
    found = collecting.collect_entries(store, contest, suite, known=known, earlier=earlier)
    table = rows_with_sources(found.entries, known=known)
    own = {sources.own for _, sources in table}
    others = [each.source for each in found.entries if each.source and each.source not in own]
    written = sources_to_json([sources for _, sources in table], others)
    return found, tuple(row for row, _ in table), written


def _earlier_leaderboard(store: "ArtifactStore") -> "Artifact | None":
    """The leaderboard of today; None where there is none or it cannot be read."""
    try:
        return store.resolve(LEADERBOARD)
    except (DamagedArtifactError, MissingArtifactError):
        return None


def _known(earlier: "Artifact | None", suite: str) -> KnownComparisons | None:
    """What the leaderboard of today says of a suite; None where it is not there as published."""
    if earlier is None or not {f"{suite}.json", f"{suite}{SOURCES}"} <= earlier.files.keys():
        return None
    try:
        table, sources = (earlier.read_bytes(f"{suite}{end}") for end in (".json", SOURCES))
    except DamagedArtifactError:
        return None
    return known_comparisons(table, sources)


def promote(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    device: str,
    threads: int,
    run: str | None = None,
    stream: "StreamSettings | None" = None,
) -> Promotion | Held | None:
    """Put a recipe's best candidate before its gate; None when it has no scored candidate yet.

    The candidate is chosen on validation items and judged on test items. When the gate says yes,
    `<recipe>/champion` points to its checkpoint; otherwise the champion stays. It stays undecided
    where the suite is broken, or where what the candidates are compared with cannot be read whole.
    What a person passed over (champion_history) is no candidate until something is new, nor is what
    rests on something withdrawn; a champion that does is demoted first (demotion).
    A champion is written, unless the recipe keeps none; `stream` says how to merge it.
    """
    from assets.work.suite_files import load_suite
    from merge_ops.stream import StreamSettings

    stream = stream or StreamSettings(threads=threads, device=device)

    settle(store, recipe.name, stream, run)
    champion = names.resolve(store, names.champion(recipe.name))
    if recipe.suite in contest.broken.suites:
        return Held(contest.broken.suites[recipe.suite], champion, fault=False)
    suite = load_suite(contest.suites[recipe.suite])
    scoring = Scoring(suite, device, threads, run)
    with collecting.collector_paused():
        collected = collecting.collect_entries(store, contest, suite, [recipe], checked=False)
    try:
        return _judged(store, recipe, contest.runs, collected, champion, scoring, stream)
    finally:
        for entry in collected.entries:
            entry.scores.forget_samples()


def _judged(
    store: "ArtifactStore",
    recipe: RankedRecipe,
    runs: Mapping[str, Collection[str]],
    collected: Collected,
    champion: "Artifact | None",
    scoring: Scoring,
    stream: "StreamSettings",
) -> Promotion | Held | None:
    """What the gate says of the best of what was collected."""
    if collected.damaged:
        told = (f"{name}: {problem}" for name, problem in collected.damaged.items())
        return Held("; ".join(told), champion, fault=True)
    entries = clean(store, collected.entries)
    rivals = [entry for entry in entries if recipe.meets(entry, runs)]
    experts = {entry.name: entry.scores for entry in rivals}
    candidates = [entry for entry in choose(entries) if entry.recipe == recipe.name]
    if not candidates:
        why = why_none(store, collected.entries, recipe.name)
        return Held(why, champion, fault=False) if why is not None else None
    ref = names.history_of(store, names.champion(recipe.name))
    aside = set_aside(store, ref, scoring.suite.digest)
    if len(candidates) > 1:  # a single one needs no validation items
        candidates.sort(key=best_first)
    candidate = next((each for each in candidates if each.digest not in aside), None)
    if candidate is None:
        best = candidates[0]
        reasons = (f"{best.label} {aside[str(best.digest)]}",)
        return Promotion(best, None, champion, False, reasons)
    ahead = collected.left_ahead(candidate)
    if ahead is not None and champion is not None:
        told = f"{ahead.label} is the best candidate on validation items, and {ahead.because}"
        return Held(told, champion, fault=False)
    if champion is not None and champion.digest == candidate.digest:
        reasons = ("the best candidate is the champion already",)
        champion = _kept(store, recipe, champion, stream)
        return Promotion(candidate, None, champion, False, reasons)
    incumbent = None
    if champion is not None:
        incumbent = score_virtual(store, champion, scoring, stream).scores
    try:
        decision = decide(candidate.scores, experts, incumbent, parse_gate(recipe.gate))
    except UNREADABLE:
        return Held(unreadable_answers([candidate, *rivals]), champion, fault=True)
    blocked = why_unpublishable(store, str(candidate.digest), recipe) if decision.promote else None
    if blocked is not None:
        return Held(f"{candidate.label}: {blocked}", champion, fault=False, licences=True)
    if decision.promote:
        _kept(store, recipe, store.get("checkpoint", str(candidate.digest)), stream)
        _crown(store, recipe, candidate, decision, scoring.run)
        settle(store, recipe.name, stream, scoring.run)  # where it was withdrawn meanwhile
        champion = names.resolve(store, names.champion(recipe.name))
    tried = [entry for entry in entries if entry.recipe == recipe.name] if decision.promote else []
    luck = optimism_of(tried) if tried else None  # it reads the answers of all of them
    return Promotion(candidate, decision, champion, decision.promote, decision.reasons, luck)


def _kept(
    store: "ArtifactStore", recipe: RankedRecipe, champion: "Artifact", stream: "StreamSettings"
) -> "Artifact":
    """The champion, written before anything points to it where the recipe keeps champions."""
    return champion if recipe.keep == "none" else materialize(store, champion, stream)


def _crown(
    store: "ArtifactStore",
    recipe: RankedRecipe,
    candidate: Entry,
    decision: Decision,
    run: str | None,
) -> None:
    digest = str(candidate.digest)
    fields = {
        "experts": candidate.expert_set,
        "coefficient": candidate.coefficient,
        "test_mean": decision.candidate_mean,
        "reasons": list(decision.reasons),
    }
    store.point(names.champion(recipe.name), None, "checkpoint", digest, run=run, **fields)
