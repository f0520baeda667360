"""Champions that a person names or takes back, with a reason on record. Knows no Dagster."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.virtual_checkpoints import materialize
from assets.work.ranking.collecting import Contest, RankedRecipe, collect_entries
from assets.work.ranking.licensing import refuse_conflicts
from assets.work.ranking.named_checkpoints import NamedCheckpoint, scores_on
from assets.work.ranking.ranking import LEADERBOARD
from assets.work.records import champion_history as history
from assets.work.records.announcing import event_of
from assets.work.records.demotion import settle
from assets.work.records.withdrawal import rests_on, told, withdrawals
from assets.work.suite_files import load_suite
from eval_ops.errors import EvalError
from eval_ops.scores.gates import Decision, decide, parse_gate
from eval_ops.scores.leaderboard import best_first, choose
from resources.errors import DamagedArtifactError, MissingArtifactError, WithdrawnError

if TYPE_CHECKING:
    from eval_ops.suites import Suite
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore, Ref

MOST_PASSED_OVER = 8
"""Digests that a change itself names; the leaderboard of that moment tells the others."""


@dataclass(frozen=True)
class Crowning:
    """A change of champion by a person: who is it now, who was it, what would the gate have said.

    `event` is what a webhook is told. `changed` is False where it was the champion already.
    """

    champion: "Artifact"
    before: str | None
    decision: Decision | None
    changed: bool
    event: Mapping[str, Any]


def promote_by_hand(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    candidate: NamedCheckpoint,
    because: str,
    stream: "StreamSettings | None" = None,
) -> Crowning:
    """Make a scored checkpoint the champion of a recipe, whatever the gate says.

    What the gate would have said is on record with the reason. It is written where the recipe keeps
    champions; `stream` says how to merge it. Raises MissingArtifactError where
    the checkpoint has no scores on the recipe's suite, EvalError where they cannot be compared,
    WithdrawnError where it rests on something withdrawn.
    """
    suite = load_suite(contest.suites[recipe.suite])
    _refuse_withdrawn(store, candidate.digest, f"{candidate.label} is no champion")
    scores = scores_on(store, candidate.digest, suite)
    if scores is None:
        raise MissingArtifactError(
            f"{candidate.label} ({candidate.digest[:12]}) has no scores on suite '{suite.name}' as"
            " it is now, and what was not measured is no champion; `ronghe refresh` scores what the"
            " catalog lists"
        )
    refuse_conflicts(store, candidate.digest, recipe, f"{candidate.label} is no champion")
    ref = names.ref_of(store, names.champion(recipe.name))
    decision = _judge(store, contest, recipe, candidate, suite)
    fields = {
        "experts": candidate.experts,
        "coefficient": candidate.coefficient,
        "test_mean": scores.mean().value,
        "gate": "not asked" if decision is None else "yes" if decision.promote else "no",
        "reasons": list(decision.reasons) if decision is not None else [],
    }
    return _point(
        store, contest, recipe, suite, ref, candidate.digest, history.PROMOTION, because, fields,
        decision, stream,
    )  # fmt: skip


def roll_back(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    because: str,
    stream: "StreamSettings | None" = None,
) -> Crowning:
    """Make the champion before the present one the champion again.

    Raises MissingArtifactError where there was none before, or the store has lost it, and
    WithdrawnError where it rests on something withdrawn.
    """
    ref = names.ref_of(store, names.champion(recipe.name))
    before = history.before_this(ref) if ref is not None else None
    if before is None:
        told = "has no champion" if ref is None else "had no champion before this one"
        raise MissingArtifactError(
            f"recipe '{recipe.name}' {told}; `ronghe champion {recipe.name} --history` shows what"
            " was, and `ronghe promote NAME --because …` names another one"
        )
    _refuse_withdrawn(store, before.digest, f"recipe '{recipe.name}' is not rolled back")
    suite = load_suite(contest.suites[recipe.suite])
    kept = ("experts", "coefficient", "test_mean")
    fields = {name: before.fields[name] for name in kept if name in before.fields}
    return _point(
        store, contest, recipe, suite, ref, before.digest, history.ROLLBACK, because, fields, None,
        stream,
    )  # fmt: skip


def _point(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    suite: "Suite",
    ref: "Ref | None",
    digest: str,
    kind: Any,
    because: str,
    fields: Mapping[str, Any],
    decision: Decision | None,
    stream: "StreamSettings | None",
) -> Crowning:
    before = ref.digest if ref is not None else None
    champion = store.get("checkpoint", digest)
    if recipe.keep != "none":
        champion = materialize(store, champion, stream)
    if before != digest or kind == history.PROMOTION:
        board = _board(store)
        passed = [each for each in (before, *_best(store, contest, recipe, suite)) if each]
        said = {
            **fields,
            history.BY_HAND: kind,
            history.BECAUSE: because,
            history.SUITE_DIGEST: suite.digest,
            history.PASSED_OVER: [each for each in dict.fromkeys(passed) if each != digest],
            **({history.LEADERBOARD_THEN: board} if board else {}),
        }
        store.point(names.champion(recipe.name), None, champion.kind, digest, **said)
        settle(store, recipe.name, stream)  # where it was withdrawn meanwhile
    now = names.ref_of(store, names.champion(recipe.name))
    event = event_of(
        kind,
        recipe.name,
        suite.name,
        store.namespace.name,
        candidate={"digest": digest, **fields},
        champion=digest,
        before=before,
        reasons=tuple(decision.reasons) if decision is not None else (),
        because=because,
        by=now.current.by if now is not None else None,
    )
    return Crowning(champion, before, decision, before != digest, event)


def _refuse_withdrawn(store: "ArtifactStore", digest: str, what: str) -> None:
    marks = {each: mark for each, mark in withdrawals(store).items() if not mark.warn_only}
    resting = rests_on(store, [digest], marks)
    if resting:
        raise WithdrawnError(
            f"{what}: {digest[:12]} rests on what was withdrawn ({told(resting[digest])});"
            " `ronghe withdraw NAME --undo --because …` takes that back"
        )


def _judge(
    store: "ArtifactStore",
    contest: Contest,
    recipe: RankedRecipe,
    candidate: NamedCheckpoint,
    suite: "Suite",
) -> Decision | None:
    """What the gate says of a candidate; None where there is nothing to compare it with.

    So it is where the champion has no scores on the suite as it is now.
    """
    ref = names.ref_of(store, names.champion(recipe.name))
    entries = collect_entries(store, contest, suite, []).entries
    rivals = [entry for entry in entries if recipe.meets(entry, contest.runs)]
    experts = {entry.name: entry.scores for entry in rivals}
    scores = scores_on(store, candidate.digest, suite)
    if not experts or scores is None or (ref is not None and ref.digest == candidate.digest):
        return None
    incumbent = scores_on(store, ref.digest, suite) if ref is not None else None
    if ref is not None and incumbent is None:
        return None
    return decide(scores, experts, incumbent, parse_gate(recipe.gate))


def _best(
    store: "ArtifactStore", contest: Contest, recipe: RankedRecipe, suite: "Suite"
) -> list[str]:
    """The recipe's best candidates on validation items, which a person passes over now."""
    try:
        entries = [e for e in collect_entries(store, contest, suite, [recipe]).entries if e.experts]
        best = sorted(choose(entries), key=best_first)
    except EvalError:
        return []
    return [str(each.digest) for each in best[:MOST_PASSED_OVER]]


def _board(store: "ArtifactStore") -> str | None:
    try:
        ref = store.ref(LEADERBOARD)
    except DamagedArtifactError:
        return None
    return ref.digest if ref is not None else None
