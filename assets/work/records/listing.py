"""What a catalog has in a store, name by name, for people. Knows no Dagster."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.records.champion_history import champion_state
from assets.work.records.stored_names import label_of, named_refs, resolve_name
from assets.work.records.withdrawal import Withdrawal, ancestors, marked, read_each, versions_of
from assets.work.upstream.packed_models import MODEL

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref

MADE = ("model", "champion", "merged_checkpoint", "step")
"""Kinds of names that are listed unless others are asked for: those that can be loaded."""


@dataclass(frozen=True)
class Listed:
    """One name: what it points to, how large that is, and what a person must know of it.

    `nbytes` are those of a virtual checkpoint when it is written, None where nothing says. `uses`
    are the models that went in, by the names that the catalog had for them then.
    """

    name: str
    kind: str
    digest: str
    nbytes: int | None
    virtual: bool
    licences: tuple[str, ...]
    uses: Mapping[str, str]
    at: str
    by: str | None
    stale: str | None
    withdrawn: tuple[Withdrawal, ...]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "kind": self.kind,
            "digest": self.digest,
            "bytes": self.nbytes,
            "virtual": self.virtual,
            "licences": list(self.licences),
            "uses": dict(self.uses),
            "at": self.at,
            "by": self.by,
            "stale": self.stale,
            "withdrawn": [
                {"digest": each.digest, "because": each.because, "by": each.by, "at": each.when,
                 "called": each.called, "warn_only": each.warn_only}
                for each in self.withdrawn
            ],
        }  # fmt: skip


@dataclass(frozen=True)
class _Kept:
    """What is kept of a manifest while thousands are read."""

    nbytes: int | None
    virtual: bool
    readable: bool


def list_names(
    store: "ArtifactStore",
    kinds: Collection[str] | None = MADE,
    uses: str | None = None,
    problems: list[str] | None = None,
) -> list[Listed]:
    """List the names of a catalog: models first, then champions, then what recipes made.

    `kinds` None stands for all. With `uses`, only what was made from that model or content. Costs
    each ref and the manifest behind it once, and all manifests where anything is withdrawn. What is
    wrong with names that cannot be read, and so are not listed, goes to `problems`.
    """
    refs = named_refs(store, problems)
    chosen = [ref for ref in refs if kinds is None or names.kind_of(_asset(ref)) in kinds]
    models = {str(ref.partition): ref for ref in refs if _asset(ref) == MODEL}
    kept = {
        name: _Kept(
            bytes_in(manifest) if isinstance(manifest, dict) else None,
            isinstance(manifest, dict) and manifest.get("virtual") is True,
            isinstance(manifest, dict),
        )
        for name, manifest in read_each(store, {(ref.kind, ref.digest) for ref in chosen})
    }
    resting = marked(store)
    if uses is not None:
        above = ancestors(store, {ref.digest for ref in chosen})
        used = _used(store, uses)
        chosen = [ref for ref in chosen if used & (above[ref.digest] - {ref.digest})]
    made = {ref.digest: ref for ref in refs if names.kind_of(_asset(ref)) in MADE[2:]}
    listed = [
        _listed(store, ref, kept.get((ref.kind, ref.digest)), models, made, resting)
        for ref in chosen
    ]
    order = {kind: place for place, kind in enumerate(MADE)}
    return sorted(
        listed, key=lambda each: (order.get(each.kind, len(order)), _by_number(each.name))
    )


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key of order in which `run@200` stands before `run@1000`."""
    parts = re.split(r"(\d{1,18})", name)
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]


def _asset(ref: "Ref") -> str:
    return names.present_name(ref.asset)


def _used(store: "ArtifactStore", uses: str) -> set[str]:
    named = resolve_name(store, uses)
    model = named.partition if named.asset == MODEL else None
    return set(versions_of(store, named.digest, model))


def _listed(
    store: "ArtifactStore",
    ref: "Ref",
    kept: "_Kept | None",
    models: Mapping[str, "Ref"],
    made: Mapping[str, "Ref"],
    resting: Mapping[str, list[Withdrawal]],
) -> Listed:
    asset, source = _asset(ref), ref
    kind = names.kind_of(asset)
    if kind == names.CHAMPION and "models" not in ref.fields:
        source = made.get(ref.digest, ref)
    uses = source.fields.get("models")
    uses = dict(uses) if isinstance(uses, dict) else {}
    stale = None
    if kept is None:
        stale = "the store has lost it; `ronghe refresh` makes it again"
    elif not kept.readable:
        stale = "its manifest cannot be read; `ronghe verify` says why"
    elif kind == names.CHAMPION:
        state = champion_state(store, asset.rpartition("/")[0])
        stale = state.stale if state is not None else None
    else:
        stale = _why_stale(uses, models)
    return Listed(
        label_of(asset, ref.partition),
        kind,
        ref.digest,
        kept.nbytes if kept is not None else None,
        kept is not None and kept.virtual,
        _licences(source),
        uses,
        ref.current.at,
        ref.current.by,
        stale,
        tuple(resting.get(ref.digest, ())),
    )


def _why_stale(uses: Mapping[str, str], models: Mapping[str, "Ref"]) -> str | None:
    """Say which models have another version now than went in. Of steps nothing is said."""
    moved = sorted(
        name for name, digest in uses.items() if name in models and models[name].digest != digest
    )
    return f"made from an earlier {', '.join(moved)}" if moved else None


def _licences(ref: "Ref") -> tuple[str, ...]:
    own, of_models = ref.fields.get("licence"), ref.fields.get("licences")
    found = [own] if own else list(of_models.values()) if isinstance(of_models, dict) else []
    return tuple(sorted({str(each) for each in found if each}))


def bytes_in(manifest: Mapping[str, Any]) -> int | None:
    """Return the bytes of a model by its manifest: as it was, or will be, where it is kept less."""
    making = manifest.get("making")
    if isinstance(making, dict) and manifest.get("virtual") is True:
        return int(making["bytes"]) if isinstance(making.get("bytes"), int) else None
    if isinstance(manifest.get("unpacked_bytes"), int):
        return int(manifest["unpacked_bytes"])
    files = manifest.get("files")
    return sum(each["size"] for each in files) if isinstance(files, list) else None
