"""What is withdrawn in a store, and what rests on it. Knows no Dagster.

A model is withdrawn by its contents: a mark on each digest, for all catalogs of the store. Whatever
was made from a marked content rests on it, on the way over any number of merges, task vectors and
adapters. Nothing is removed: marks are told, champions go back to a clean one (demotion), and no
candidate that rests on one is promoted.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work.merging.virtual_checkpoints import CHECKPOINT, MADE_FROM
from assets.work.records import lineage
from assets.work.upstream.packed_models import MODEL, PACKED

if TYPE_CHECKING:
    from resources.store import ArtifactStore


@dataclass(frozen=True)
class Withdrawal:
    """A withdrawal says why, by whom and when a content was withdrawn, and what it was called.

    With `warn_only` it is told, and the champions that rest on it stay.
    """

    digest: str
    because: str
    by: str
    when: str
    called: str = ""
    warn_only: bool = False

    def __str__(self) -> str:
        named = f"{self.called} ({self.digest[:12]})" if self.called else self.digest[:12]
        by = f" by {self.by} on {self.when[:10]}" if self.by else ""
        return f"{named} was withdrawn{by}: {self.because}"


def withdrawals(store: "ArtifactStore") -> dict[str, Withdrawal]:
    """Return what is withdrawn now, by digest. A mark that cannot be read counts as one."""
    return {
        digest: Withdrawal(digest, mark.because, mark.by, mark.at, mark.called, mark.warn_only)
        for digest, mark in store.marks.withdrawn().items()
    }


def rests_on(
    store: "ArtifactStore", digests: Iterable[str], marks: Mapping[str, Withdrawal] | None = None
) -> dict[str, list[Withdrawal]]:
    """Return what is withdrawn of the contents themselves and of all that they were made from.

    What rests on nothing withdrawn is not there. Costs one listing where nothing is withdrawn, and
    else the manifests of all ancestors, each read once.
    """
    wanted = list(dict.fromkeys(digests))
    marks = withdrawals(store) if marks is None else marks
    if not marks or not wanted:
        return {}
    parents = _parents_of(store, wanted)
    resting: dict[str, list[Withdrawal]] = {}
    for digest in wanted:
        found = [marks[each] for each in _reached(digest, parents) if each in marks]
        if found:
            resting[digest] = found
    return resting


def marked(
    store: "ArtifactStore", marks: Mapping[str, Withdrawal] | None = None
) -> dict[str, list[Withdrawal]]:
    """Return everything in the store that rests on something withdrawn, by digest, with that.

    Reads every manifest once where anything is withdrawn at all.
    """
    marks = withdrawals(store) if marks is None else marks
    if not marks:
        return {}
    parents: dict[str, set[str]] = {}
    for (_, digest), manifest in read_each(store, store.upkeep.manifests()):
        if isinstance(manifest, dict):
            parents.setdefault(digest, set()).update(parents_in(manifest))
    resting: dict[str, list[Withdrawal]] = {}
    for digest in {*parents, *marks}:
        found = [marks[each] for each in _reached(digest, parents) if each in marks]
        if found:
            resting[digest] = found
    return resting


def ancestors(store: "ArtifactStore", digests: Iterable[str]) -> dict[str, set[str]]:
    """Return what each content was made from, on the way over others too, and itself."""
    wanted = list(dict.fromkeys(digests))
    parents = _parents_of(store, wanted)
    return {digest: set(_reached(digest, parents)) for digest in wanted}


def told(found: Iterable[Withdrawal]) -> str:
    """Say what is withdrawn, for people, in one line."""
    return "; ".join(map(str, found))


def versions_of(store: "ArtifactStore", digest: str, model: str | None) -> list[str]:
    """Return the digests that a withdrawal is about: of a model's name every version that it had.

    Which version was bad is seldom known when somebody withdraws a model. A digest is itself alone.
    """
    ref = store.ref(MODEL, model) if model is not None else None
    entries = ref.history if ref is not None else ()
    return list(dict.fromkeys([digest, *(each.digest for each in reversed(entries))]))


def read_each(
    store: "ArtifactStore", names: Iterable[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], Any]]:
    """Yield manifests as `read_manifests` does, some hundred at a time, and keep none of them."""
    listed = list(names)
    for start in range(0, len(listed), lineage.BATCH):
        yield from store.upkeep.read_manifests(listed[start : start + lineage.BATCH]).items()


def parents_in(manifest: Mapping[str, Any]) -> set[str]:
    """Return the digests that a manifest says its content was made from, or is kept by.

    Of checkpoints as assets/work/records/lineage tells it; studies name their inputs, and a packed
    expert needs the base that it was packed against.
    """
    kind, base, inputs = manifest["kind"], manifest.get("base"), manifest.get("inputs")
    if kind == CHECKPOINT:
        return {edge.parent for edge in lineage.parents_in(manifest, manifest["digest"])}
    if kind == PACKED and isinstance(base, dict):
        return {str(base.get("digest"))}
    if isinstance(inputs, dict):
        return set(map(str, inputs.values()))
    return set(map(str, inputs)) if isinstance(inputs, list) else set()


def _parents_of(store: "ArtifactStore", wanted: Iterable[str]) -> dict[str, set[str]]:
    """The parents of contents and of all their ancestors, read generation by generation."""
    parents: dict[str, set[str]] = {}
    waiting = set(wanted)
    while waiting:
        keys = [(kind, digest) for digest in sorted(waiting) for kind in MADE_FROM]
        found = dict.fromkeys(waiting, frozenset[str]())
        parents.update({digest: set(none) for digest, none in found.items()})
        for (_, digest), manifest in read_each(store, keys):
            if isinstance(manifest, dict):
                parents[digest] |= parents_in(manifest)
        waiting = {each for digest in waiting for each in parents[digest]} - parents.keys()
    return parents


def _reached(digest: str, parents: Mapping[str, set[str]]) -> list[str]:
    """A content and all its ancestors, each once, sorted but for the content itself."""
    seen, waiting = {digest}, [digest]
    while waiting:
        more = parents.get(waiting.pop(), set()) - seen
        seen |= more
        waiting += more
    return [digest, *sorted(seen - {digest})]
