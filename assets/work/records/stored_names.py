"""What a name stands for in a store: the one reader of names for all commands. Knows no Dagster.

qwen                          a model of the catalog
ties/champion, champion/ties  a recipe's champion
ties[lambda=0.5|e1+e2]        what a recipe made of an expert set at a coefficient; also
                              ties/merged_checkpoint[…], and ties/step/NAME[…] of a step
ties e1+e2 lambda=0.5         the same, as the leaderboard calls it
model[qwen]                   any other asset, with its partition in brackets or without one
3f9c02, or all of a digest    a content, whatever it is called
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from assets.work import names
from assets.work.merging.virtual_checkpoints import CHECKPOINT
from assets.work.upstream.packed_models import MODEL, PACKED, as_it_was
from merge_ops.errors import did_you_mean
from resources.errors import MissingArtifactError

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel
    from resources.store import ArtifactStore, Ref

LEAST = 6
"""Characters that name a digest, where it is the only one that begins so."""
WHOLE = 64
"""Characters of a whole digest."""
HEX = frozenset("0123456789abcdef")
LOADABLE = (MODEL, CHECKPOINT, PACKED)
"""Kinds that a model is loaded from. One content may have several; the first is opened."""
MOST_SHOWN = 6


@dataclass(frozen=True)
class Named:
    """A named content: its name as `ronghe ls` prints it, and what artifact that is.

    `asset` is None for a content that was named by its digest and that no name was looked up for.
    """

    name: str
    kind: str
    digest: str
    asset: str | None = None
    partition: str | None = None
    ref: "Ref | None" = None


def label_of(asset: str, partition: str | None) -> str:
    """Return what `ronghe ls` calls a name: short, and read again by `resolve_name`."""
    if asset == MODEL and partition is not None:
        return partition
    recipe, _, kind = asset.rpartition("/")
    called = recipe if recipe and kind == names.MERGED_CHECKPOINT and partition else asset
    return called if partition is None else f"{called}[{partition}]"


def resolve_name(store: "ArtifactStore", text: str) -> Named:
    """Find what a name stands for in the catalog's part of a store.

    Raises MissingArtifactError where it stands for nothing, or for several contents; its message
    lists what is called nearly so.
    """
    found = _by_ref(store, MODEL, text) or _by_asset(store, text) or _by_label(store, text)
    return found or _by_digest(store, text) or _unknown(store, text)


def open_named(store: "ArtifactStore", named: Named) -> "StoredModel":
    """Open what a name stands for; a packed expert as it was. Raises MissingArtifactError."""
    return as_it_was(store, store.get(named.kind, named.digest))


def named_refs(store: "ArtifactStore", problems: list[str] | None = None) -> "list[Ref]":
    """Read all refs of the catalog that can be read, by today's names; vacant ones are left out.

    What is wrong with those that cannot be read goes to `problems`.
    """
    upkeep, name = store.upkeep, store.namespace.name
    now = [(name, entry.key) for entry in upkeep.ref_entries()]
    stored = upkeep.read_refs(now, upkeep.earlier_keys())
    by_name: dict[tuple[str, str | None], Ref] = {}
    for each in reversed(stored):  # those without a catalog stand behind, and give way
        if each.ref is not None:
            by_name[names.present_name(each.ref.asset), each.ref.partition] = each.ref
        elif problems is not None:
            problems.append(str(each.fault))
    return [ref for ref in by_name.values() if not ref.vacant]


def names_of(store: "ArtifactStore", digest: str) -> list[Named]:
    """Return every name of the catalog that points to a content, as `ronghe ls` calls them."""
    return [
        Named(
            label_of(asset := names.present_name(ref.asset), ref.partition),
            ref.kind, ref.digest, asset, ref.partition, ref,
        )
        for ref in named_refs(store)
        if ref.digest == digest
    ]  # fmt: skip


def _by_ref(store: "ArtifactStore", asset: str, partition: str | None) -> Named | None:
    ref = names.ref_of(store, asset, partition)
    if ref is None:
        return None
    return Named(label_of(asset, partition), ref.kind, ref.digest, asset, partition, ref)


def _by_asset(store: "ArtifactStore", text: str) -> Named | None:
    asset, bracket, rest = text.partition("[")
    partition = rest.removesuffix("]") if bracket and rest.endswith("]") else None
    if not asset.strip("/") or "//" in asset or asset[0] == "/" or asset[-1] == "/":
        return None
    if "/" not in asset and partition is not None:
        made = _by_ref(store, names.merged_checkpoint(asset), partition)
        return made or _by_ref(store, asset, partition)
    asset = names.present_name(asset)
    ref = names.history_of(store, asset, partition)
    if ref is not None and ref.vacant:
        raise MissingArtifactError(
            f"'{text}' stands for nothing now: {ref.fields.get('because', 'it was taken back')}."
            f" `ronghe refs {asset}` shows what it was"
        )
    return _by_ref(store, asset, partition)


def _by_label(store: "ArtifactStore", text: str) -> Named | None:
    """A row of the leaderboard: recipe, expert set and coefficient; `default` may be left out."""
    recipe, space, rest = text.partition(" ")
    if not space or "/" in recipe:
        return None
    asset, words = names.merged_checkpoint(recipe), rest.split(" ")
    for partition in names.refs_of(store, asset):
        coefficient, bar, experts = (partition or "").partition("|")
        parts = [experts, coefficient] if bar else [coefficient]
        if words in (parts, [part for part in parts if part != "default"]):
            return _by_ref(store, asset, partition)
    return None


def _by_digest(store: "ArtifactStore", text: str) -> Named | None:
    if len(text) < LEAST or not set(text) <= HEX:
        return None
    if len(text) == WHOLE:  # nothing has to be listed to find what begins so
        known = store.upkeep.read_manifests([(kind, text) for kind in LOADABLE])
        kind = next((each for each in LOADABLE if (each, text) in known), None)
        if kind is not None:
            return Named(text, kind, text)
    found: dict[str, list[str]] = {}
    for kind, digest in store.upkeep.manifests():
        if digest.startswith(text):
            found.setdefault(digest, []).append(kind)
    models = {digest for digest, kinds in found.items() if set(kinds) & set(LOADABLE)}
    chosen = models or set(found)
    if len(chosen) > 1:
        shown = ", ".join(f"{each[:16]} ({found[each][0]})" for each in sorted(chosen)[:MOST_SHOWN])
        raise MissingArtifactError(
            f"'{text}' begins the digests of {len(chosen)} artifacts in {store.uri}: {shown}; give"
            " more characters"
        )
    for digest in chosen:
        kind = next((each for each in LOADABLE if each in found[digest]), found[digest][0])
        return Named(digest, kind, digest)
    return None


def _unknown(store: "ArtifactStore", text: str) -> Named:
    known = _known(store)
    first = [label for kind, label in known if kind in (MODEL, names.CHAMPION)]
    near = _near(text, known)
    shown = ", ".join(first[:MOST_SHOWN]) + (" …" if len(first) > MOST_SHOWN else "")
    raise MissingArtifactError(
        f"'{text}' names nothing in artifact store {store.uri}.{near} Known are {shown or 'none'};"
        " `ronghe ls` lists them. Give a model, RECIPE/champion, RECIPE[COEFFICIENT|EXPERTS], or"
        f" the first {LEAST} characters of a digest or more; `ronghe refresh` makes what the"
        " catalog lists"
    )


def _near(text: str, known: list[tuple[str, str]]) -> str:
    """What may be meant: the nearest name, or all that the recipe has which was named.

    Of two coefficients neither is nearer: `ties[density=0.5]` is no hint for `density=0.2`.
    """
    recipe = re.split(r"[/\[ ]", text, maxsplit=1)[0]
    merged = [label for kind, label in known if kind == names.MERGED_CHECKPOINT]
    made = [label for label in merged if label.partition("[")[0] == recipe]
    hint = did_you_mean(text, [label for _, label in known])
    if not made or (hint and not any(f"'{label}'" in hint for label in merged)):
        return hint
    more = " …" if len(made) > MOST_SHOWN else ""
    return f" Recipe '{recipe}' made {', '.join(made[:MOST_SHOWN])}{more}."


def _known(store: "ArtifactStore") -> list[tuple[str, str]]:
    """Every name of the catalog, as kind and label, by the keys of its refs, unread.

    Models come first, then champions.
    """
    found: list[tuple[str, str]] = []
    for entry in store.upkeep.ref_entries():
        *folders, file = entry.key.split("/")[2:]
        partition = unquote(file.removesuffix(".json"), errors="replace")
        asset = names.present_name("/".join(map(unquote, folders)))
        label = label_of(asset, None if partition == "@" else partition)
        found.append((names.kind_of(asset), label))
    order = {MODEL: 0, names.CHAMPION: 1, names.MERGED_CHECKPOINT: 2}
    return sorted(set(found), key=lambda each: (order.get(each[0], len(order)), each[1]))
