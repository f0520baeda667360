"""Champions that rest on something withdrawn go back to the last clean one. Knows no Dagster.

A mark comes first, then champions: whoever is killed between leaves a champion that the next
refresh, or the next `ronghe withdraw`, demotes. Whoever changes a champion looks at the marks again
afterwards (`settle`), so that of a withdrawal and a promotion at the same time one sees the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.virtual_checkpoints import materialize
from assets.work.records import champion_history as history
from assets.work.records.withdrawal import Withdrawal, rests_on, told, withdrawals
from resources.errors import StoreFailureError

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import Entry
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore, Ref, RefEntry

TRIES = 20
"""Times that a champion may be changed by others while it is demoted."""


@dataclass(frozen=True)
class Demotion:
    """A demotion is one champion that went: its recipe and digest, who follows, and why.

    `champion` is None where no earlier champion is clean: the recipe has none then.
    """

    recipe: str
    before: str
    champion: str | None
    because: str

    def __str__(self) -> str:
        now = (
            f"is again {self.champion[:12]}" if self.champion else "is nobody: no earlier is clean"
        )
        return f"the champion of {self.recipe} {now}, and no more {self.before[:12]}"


def settle(
    store: "ArtifactStore",
    recipe: str,
    stream: "StreamSettings | None" = None,
    run: str | None = None,
) -> Demotion | None:
    """Demote a recipe's champion while it rests on something withdrawn; return what was done.

    The champion that follows is written where the one before was. A withdrawal that only warns
    demotes nobody. Raises StoreFailureError where others change the champion all the time.
    """
    asset, first = names.champion(recipe), None
    for _ in range(TRIES):
        ref = names.history_of(store, asset)
        if ref is None or ref.vacant:
            return first
        marks = {digest: each for digest, each in withdrawals(store).items() if not each.warn_only}
        line = history.line_of(ref)
        resting = rests_on(store, [ref.digest, *(each.digest for each in line)], marks)
        if ref.digest not in resting:
            return first
        clean = next((e for e in reversed(line) if _stands(store, e, resting, ref.digest)), None)
        _point(store, asset, ref, clean, resting[ref.digest], stream, run)
        now = names.history_of(store, asset)
        if now is not None and now.fields.get(history.DEMOTED) == ref.digest:
            because = str(now.fields[history.BECAUSE])
            before = first.before if first is not None else ref.digest
            first = Demotion(recipe, before, None if now.vacant else now.digest, because)
    raise StoreFailureError(
        f"the champion of recipe '{recipe}' in {store.uri} was changed by others {TRIES} times"
        " while it was being demoted; run again, and see who promotes it so often"
    )


def crowned(store: "ArtifactStore") -> list[str]:
    """Return the recipes that have or had a champion, sorted; those of damaged refs are left out.

    Recipes that the catalog has no more are among them.
    """
    upkeep, name = store.upkeep, store.namespace.name
    now = [each.key for each in upkeep.ref_entries() if names.CHAMPION in each.key.split("/")]
    earlier = [key for key in upkeep.earlier_keys() if names.CHAMPION in key.split("/")]
    stored = upkeep.read_refs([(name, key) for key in now], earlier)
    assets = {names.present_name(each.ref.asset) for each in stored if each.ref is not None}
    return sorted(a.rpartition("/")[0] for a in assets if names.kind_of(a) == names.CHAMPION)


def clean(store: "ArtifactStore", entries: Sequence["Entry"]) -> "list[Entry]":
    """Return the entries without the merged candidates that rest on something withdrawn."""
    merged = [str(entry.digest) for entry in entries if entry.recipe is not None]
    resting = rests_on(store, merged)
    return [e for e in entries if e.recipe is None or str(e.digest) not in resting]


def why_none(store: "ArtifactStore", entries: Sequence["Entry"], recipe: str) -> str | None:
    """Say that all candidates of a recipe rest on something withdrawn; None where they do not."""
    own = [str(entry.digest) for entry in entries if entry.recipe == recipe]
    resting = rests_on(store, own)
    if not own or not all(digest in resting for digest in own):
        return None
    found = {str(each): each for every in resting.values() for each in every}
    return f"every candidate rests on what was withdrawn: {told(found.values())}"


def _stands(
    store: "ArtifactStore", entry: "RefEntry", resting: dict[str, list[Withdrawal]], now: str
) -> bool:
    """Whether an earlier champion can follow: it is clean, and the store still has it."""
    if entry.digest == now or entry.digest in resting:
        return False
    return store.find(entry.kind, entry.digest) is not None


def _point(
    store: "ArtifactStore",
    asset: str,
    ref: "Ref",
    clean: "RefEntry | None",
    reasons: Sequence[Withdrawal],
    stream: "StreamSettings | None",
    run: str | None,
) -> None:
    """Change the champion, unless somebody else has changed it meanwhile."""
    said: dict[str, Any] = {history.DEMOTED: ref.digest, history.BECAUSE: told(reasons)}
    if clean is None:
        store.point(
            asset, None, ref.kind, ref.digest, run=run, after=ref.current, vacant=True, **said
        )
        return
    kept = ("experts", "coefficient", "test_mean")
    said |= {name: clean.fields[name] for name in kept if name in clean.fields}
    champion, before = store.get(clean.kind, clean.digest), store.find(ref.kind, ref.digest)
    if champion.virtual and before is not None and not before.virtual:
        materialize(store, champion, stream)
    store.point(asset, None, clean.kind, clean.digest, run=run, after=ref.current, **said)
