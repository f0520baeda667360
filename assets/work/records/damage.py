"""What is wrong in a store, and what was made from what is wrong. Knows no Dagster.

A part is bad where its manifest or one of its files is not as published, or where what it needs is
gone: a packed expert needs its base. Whatever was made from a model or a checkpoint whose bytes are
wrong is doubtful, however sound its own bytes are: nobody knows when they went wrong.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assets.work.merging.virtual_checkpoints import making_of, stored_by_digest
from assets.work.names import CHAMPION, kind_of
from assets.work.upstream.packed_models import MODEL, PACKED, RestoredModel
from merge_ops.errors import RongheError

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref

Name = tuple[str, str]
"""Kind and digest of an artifact."""
_BESIDE = ("tensor_digests", "tensor_keys")
"""Kinds that lie beside a model or a checkpoint, under its digest."""
_SCORES, _LEADERBOARD = "scores", "leaderboard"


@dataclass
class Repair:
    """A repair is what is to be set aside, by key, and what cannot be helped here."""

    keys: list[str] = field(default_factory=list[str])
    artifacts: list[Name] = field(default_factory=list[Name])
    doubtful: list[Name] = field(default_factory=list[Name])
    left: list[str] = field(default_factory=list[str])


def need_fault(
    store: "ArtifactStore", manifest: Mapping[str, Any], bad: Collection[Name]
) -> str | None:
    """Say what an artifact needs and has not; None where it has everything.

    A packed expert is restored, into nothing, unless its base is among the `bad`: once that is
    right again, so is the expert. A virtual checkpoint needs what it is made from.
    """
    from merge_ops.jobs.restoring import Nowhere, restore
    from resources.errors import MissingArtifactError, StoreError, no_answer

    if manifest.get("virtual") is True:
        return _unmakeable(store, manifest)
    if manifest.get("kind") != PACKED:
        return None
    base = _base_of(manifest)
    if (MODEL, base) in bad:
        return None
    try:
        with RestoredModel(store, store.get(PACKED, manifest["digest"])).source() as source:
            restore(source, Nowhere())
    except MissingArtifactError:
        return (
            f"its base, model artifact {base}, is not in the store, so the expert cannot be"
            " restored; it has to be pulled again, and its base before it"
        )
    except (StoreError, RongheError, KeyError, TypeError) as error:
        if (unanswered := no_answer(error)) is not None:
            raise unanswered from None
        return f"it cannot be restored: {error}"
    return None


def _unmakeable(store: "ArtifactStore", manifest: Mapping[str, Any]) -> str | None:
    """Why a virtual checkpoint cannot be made: a model is gone, or the manifest does not say."""
    from resources.errors import DamagedArtifactError, MissingArtifactError

    try:
        making = making_of(store.get(str(manifest["kind"]), str(manifest["digest"])))
        for digest in sorted({each for parts in making.models.values() for each in parts}):
            stored_by_digest(store, digest)
    except (MissingArtifactError, DamagedArtifactError) as error:
        return str(error)
    return None


def _base_of(manifest: Mapping[str, Any]) -> str:
    base = manifest.get("base")
    return str(base.get("digest")) if isinstance(base, dict) else ""


def made_from(manifests: Mapping[Name, Mapping[str, Any]], wrong: Iterable[Name]) -> list[Name]:
    """Return what was made from artifacts, directly and on the way over others, sorted."""
    start = set(wrong)
    digests = {digest for _, digest in start}
    mentions = {name: _mentioned(manifest) for name, manifest in manifests.items()}
    found: set[Name] = set()
    grew = True
    while grew:
        more = {
            name
            for name, said in mentions.items()
            if name not in found | start
            and (said & digests or (name[0] in _BESIDE and name[1] in digests))
        }
        found |= more
        digests |= {digest for _, digest in more}
        grew = bool(more)
    if any(kind == _SCORES for kind, _ in found):
        found |= {name for name in manifests if name[0] == _LEADERBOARD}
    return sorted(found - start)


def _mentioned(manifest: Mapping[str, Any]) -> set[str]:
    """Every text in a manifest that can be the digest of an input."""
    own = ("kind", "digest", "content_digest", "attempt", "files", "pieces", "tensors", "created")
    pending: list[Any] = [value for name, value in manifest.items() if name not in own]
    found: set[str] = set()
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, Sequence):
            pending.extend(value)
    return found


def plan_repair(
    store: "ArtifactStore",
    bad: Mapping[Name, str],
    wrong: Iterable[Name],
    manifests: Mapping[Name, Mapping[str, Any]],
) -> Repair:
    """Decide what is to be set aside.

    `bad` artifacts go, each for a reason; of them, what was made from `wrong` ones goes too, and
    refs that cannot be read, and those that point to nothing. A champion's ref stays where another
    ref has its checkpoint made again. What a later release wrote stays, and so do marks of
    withdrawals that cannot be read: without one of them what was withdrawn would be used again.
    """
    upkeep, repair = store.upkeep, Repair()
    repair.artifacts = sorted(bad)
    repair.doubtful = [each for each in made_from(manifests, wrong) if each not in bad]
    gone = {*repair.artifacts, *repair.doubtful}
    there = set(upkeep.manifests())
    refs = upkeep.all_refs()
    again = {
        stored.ref.digest
        for stored in refs
        if stored.ref is not None and kind_of(stored.ref.asset) != CHAMPION
    }
    for stored in refs:
        if stored.is_later:
            repair.left.append(str(stored.fault))
        elif stored.ref is None or not _stays(stored.ref, there, again):
            repair.keys.append(stored.key)
    repair.keys += [key for key, _ in upkeep.note_faults()]
    repair.left += [str(fault) for _, fault in store.marks.unreadable()]
    repair.keys += [upkeep.manifest_key(*name) for name in sorted(gone)]
    return repair


def _stays(ref: "Ref", there: set[Name], again: set[str]) -> bool:
    is_champion = kind_of(ref.asset) == CHAMPION
    return (ref.kind, ref.digest) in there or (is_champion and ref.digest in again)


MODELS = (MODEL, PACKED, "checkpoint")
"""Kinds whose wrong bytes make doubtful what was made from them."""
