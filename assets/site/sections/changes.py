"""What changed in a catalog, when and why: what a lead reads on Monday."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.site.facts import CatalogFacts
from assets.site.view import Change, CheckpointView
from assets.work import names
from assets.work.records.champion_history import BY_HAND, DEMOTED, ROLLBACK, reason_of
from assets.work.records.withdrawal import Withdrawal
from assets.work.upstream.packed_models import MODEL
from resources.errors import DamagedArtifactError

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref, RefEntry

MOST_CHANGES = 1000
"""Changes that the page shows, the last ones first; the store has all."""
PROMOTION, ROLLED_BACK, DEMOTION = "promotion", "rollback", "demotion"
WITHDRAWAL, FAILURE = "withdrawal", "failure"
MODEL_CHANGE, MERGES, BROKEN = "model", "merges", "broken"
KINDS = (PROMOTION, ROLLED_BACK, DEMOTION, WITHDRAWAL, FAILURE, BROKEN, MODEL_CHANGE, MERGES)
"""Kinds of changes, those that somebody has to look at first."""


@dataclass(frozen=True)
class Failure:
    """Something that failed: when, which asset and partition, and its message."""

    at: str
    asset: str
    partition: str
    message: str


def changes_of(
    store: "ArtifactStore",
    facts: CatalogFacts,
    checkpoints: Iterable[CheckpointView],
    marks: Iterable[Withdrawal],
    failures: Iterable[Failure],
    problems: dict[str, str],
) -> tuple[tuple[Change, ...], int]:
    """Collect what changed, the last change first, and count what is too old to be shown."""
    found: list[Change] = []
    for recipe in facts.contest.recipes:
        try:
            ref = names.history_of(store, names.champion(recipe.name))
        except DamagedArtifactError as error:
            problems[f"champion of {recipe.name}"] = str(error)
            continue
        found += _of_champion(recipe.name, ref) if ref is not None else ()
    models = names.table_of(store, MODEL).refs
    for name in facts.models:
        found += _of_model(name, models[name]) if name in models else ()
    found += _merges(checkpoints)
    found += [_of_withdrawal(each, facts) for each in marks]
    found += [_of_failure(each) for each in failures]
    found += _broken(facts)
    found.sort(key=lambda each: (each.at, each.kind, each.subject), reverse=True)
    return tuple(found[:MOST_CHANGES]), max(0, len(found) - MOST_CHANGES)


def _of_champion(recipe: str, ref: "Ref") -> Iterator[Change]:
    for entry in ref.history:
        kind = ROLLED_BACK if entry.fields.get(BY_HAND) == ROLLBACK else PROMOTION
        demoted = entry.fields.get(DEMOTED)
        if demoted is not None:
            kind = DEMOTION
        parts = (entry.fields.get("experts"), entry.fields.get("coefficient"))
        what = " ".join(str(part) for part in parts if part and part != "default")
        because = reason_of(entry)
        by = entry.by or ""
        what = "–" if entry.fields.get("vacant") else f"{what} {entry.digest[:12]}".strip()
        if demoted is not None:
            what = f"{str(demoted)[:12]} → {what}"
        by_hand = entry.fields.get(BY_HAND) or demoted is not None
        by = by if by_hand else _gate(by)
        yield Change(entry.at, kind, recipe, ("recipe", recipe), what, because, by)


def _gate(by: str) -> str:
    """Who changed a champion where nobody decided it by hand: the gate, in somebody's run."""
    return f"gate ({by})" if by else "gate"


def _of_model(name: str, ref: "Ref") -> Iterator[Change]:
    before: RefEntry | None = None
    for entry in ref.history:
        if before is None or before.digest != entry.digest:
            what = f"{before.digest[:12]} → " if before is not None else ""
            revision = str(entry.fields.get("revision") or "")
            yield Change(
                entry.at, MODEL_CHANGE, name, ("model", name),
                f"{what}{entry.digest[:12]}", f"revision {revision[:40]}" if revision else "",
                entry.by or "",
            )  # fmt: skip
        before = entry


def _merges(checkpoints: Iterable[CheckpointView]) -> Iterator[Change]:
    """What recipes have made, as their names stand today: one line a recipe and day."""
    groups: dict[tuple[str, str], list[CheckpointView]] = {}
    for each in checkpoints:
        groups.setdefault((each.recipe, each.at[:10]), []).append(each)
    for (recipe, _), made in groups.items():
        last = max(made, key=lambda each: each.at)
        what = last.experts + (f" {last.coefficient}" if last.coefficient != "default" else "")
        count = f"{len(made)} × " if len(made) > 1 else f"{what} "
        digest = "" if len(made) > 1 else last.digest[:12]
        yield Change(
            last.at, MERGES, recipe, ("recipe", recipe), f"{count}{digest}".strip(), "", last.by
        )


def _of_withdrawal(mark: Withdrawal, facts: CatalogFacts) -> Change:
    page = ("model", mark.called) if mark.called in facts.models else ()
    named = mark.called or mark.digest[:12]
    return Change(mark.when, WITHDRAWAL, named, page, mark.digest[:12], mark.because, mark.by)


def _of_failure(failure: Failure) -> Change:
    named = failure.asset + (f" [{failure.partition}]" if failure.partition else "")
    recipe = failure.asset.partition("/")[0] if "/" in failure.asset else ""
    page = ("recipe", recipe) if recipe else ()
    if failure.asset in (MODEL, "task_vector") and failure.partition:
        page = ("model", failure.partition)
    return Change(failure.at, FAILURE, named, page, "", failure.message, "")


def _broken(facts: CatalogFacts) -> Iterator[Change]:
    """What of the catalog's folder cannot be used now: it has no time, and stands first."""
    broken = facts.contest.broken
    parts: dict[str, Mapping[str, str]] = {
        "recipe": broken.recipes, "suite": broken.suites, "model": broken.models
    }  # fmt: skip
    for kind, found in parts.items():
        for name, problem in found.items():
            page = (kind, name) if kind != "suite" else ()
            yield Change("", BROKEN, f"{kind} {name}", page, "", problem, "")
