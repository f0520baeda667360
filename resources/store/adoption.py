"""Moving refs into a catalog's namespace: those without a catalog, or another catalog's.

Every ref is written where it belongs before it goes from where it was, so a move that is killed is
finished by the next. What a catalog has pointed to itself stays current; the moved history stands
before it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from resources.errors import DamagedArtifactError, StoreAddressError, StoreFailureError
from resources.places import Place
from resources.store.names import catalog_folder, ref_key
from resources.store.namespaces import EARLIER, catalogs, earlier_owner
from resources.store.ref_documents import parse_ref, written

Document = dict[str, Any]


@dataclass(frozen=True)
class Adoption:
    """What was moved, or with `dry_run` would be: (asset, partition) of each ref, as it is called.

    `joined` are those of them that had a newer history already. `conflicts` point elsewhere in the
    namespace; nothing is moved where there are any. `damaged` say what is wrong with refs that
    cannot be read and stay where they are.
    """

    dry_run: bool
    moved: tuple[tuple[str, str | None], ...] = ()
    joined: tuple[tuple[str, str | None], ...] = ()
    conflicts: tuple[tuple[str, str | None], ...] = ()
    damaged: tuple[str, ...] = ()


@dataclass
class _Move:
    """The documents that become one ref of the namespace, the oldest first, with their keys."""

    asset: str
    partition: str | None
    documents: list[tuple[str, Document]] = field(default_factory=list)


def adopt_refs(
    place: Place,
    catalog: str,
    source: str | None,
    present_name: Callable[[str], str],
    dry_run: bool,
) -> Adoption:
    """Move all refs of `source` (None: those without a catalog) into the namespace of `catalog`.

    `present_name` gives an asset's name of today. Where the catalog has refs of its own that did
    not come from there, and does not own `source`, nothing is moved. StoreAddressError is raised
    where the refs without a catalog are another's.
    """
    owner = earlier_owner(place) if source is None else None
    if owner not in (None, catalog):
        told = f"catalog '{owner}'" if owner else "a catalog that its document does not tell"
        raise StoreAddressError(
            f"the refs without a catalog in {place.uri} belong to {told}; `ronghe adopt-refs --from"
            f" {owner or 'NAME'}` moves that catalog's refs"
        )
    if source == catalog:
        raise StoreAddressError(f"'{catalog}' is this catalog itself; there is nothing to move")
    if source is not None and source not in catalogs(place):
        known = ", ".join(catalogs(place)) or "none"
        raise StoreAddressError(f"{place.uri} has no catalog '{source}'; it has {known}")
    moves, damaged = _moves(place, source, present_name)
    there = {key: _stored(place, key, catalog, damaged) for key in moves}
    joined = [move for key, move in moves.items() if _is_other(there[key], move)]
    if owner != catalog and joined:
        return Adoption(dry_run, (), (), tuple(map(_name, joined)), tuple(damaged))
    good = {key: move for key, move in moves.items() if not isinstance(there[key], str)}
    if not dry_run:
        for key, move in good.items():
            _move(place, key, catalog, move)
    names = tuple(map(_name, good.values()))
    return Adoption(dry_run, names, tuple(map(_name, joined)), (), tuple(damaged))


def close_earlier(place: Place, now: str) -> None:
    """Note that all refs without a catalog have been moved: nobody has to look there any more."""
    stored = place.read(EARLIER)
    if stored is not None:
        document = {**json.loads(stored[0]), "moved": now}
        place.replace(EARLIER, json.dumps(document, ensure_ascii=False).encode(), stored[1])


def _moves(
    place: Place, source: str | None, present_name: Callable[[str], str]
) -> tuple[dict[str, _Move], list[str]]:
    """The refs to be made, by their key without a catalog; and what cannot be read."""
    moves: dict[str, _Move] = {}
    damaged: list[str] = []
    others = tuple(f"{catalog_folder(name)}/" for name in catalogs(place))
    for entry in place.walk(catalog_folder(source)):
        if not entry.key.endswith(".json"):
            continue
        stored = place.read(entry.key)
        if stored is None:
            continue
        try:
            document = parse_ref(stored[0], f"{place.uri}/{entry.key}")
        except DamagedArtifactError as error:
            if source is not None or not entry.key.startswith(others):
                damaged.append(str(error))
            continue
        if document.get("catalog") != source:
            continue
        asset, partition = present_name(document["asset"]), document.get("partition")
        move = moves.setdefault(ref_key(None, asset, partition), _Move(asset, partition))
        move.documents.append((entry.key, document))
    for move in moves.values():  # of two names of one asset, the earlier's history comes first
        move.documents.sort(key=lambda pair: (pair[1]["asset"] == move.asset, pair[0]))
    return moves, damaged


def _stored(
    place: Place, key: str, catalog: str, damaged: list[str]
) -> tuple[Document, str] | str | None:
    """What is at the place where a ref goes, with its tag; its key where that is damaged."""
    target = _target(key, catalog)
    stored = place.read(target)
    if stored is None:
        return None
    try:
        return parse_ref(stored[0], f"{place.uri}/{target}"), stored[1]
    except DamagedArtifactError as error:
        damaged.append(str(error))
        return target


def _target(key: str, catalog: str) -> str:
    return f"{catalog_folder(catalog)}/{key.partition('/')[2]}"


def _is_other(there: tuple[Document, str] | str | None, move: _Move) -> bool:
    """Whether the ref that is there was not begun by an earlier move of the same."""
    if there is None or isinstance(there, str):
        return False
    lines = [line["id"] for _, document in move.documents for line in document["history"]]
    return [line["id"] for line in there[0]["history"]][: len(lines)] != lines


def _move(place: Place, key: str, catalog: str, move: _Move) -> None:
    target = _target(key, catalog)
    for _ in range(60):
        stored = place.read(target)
        before = [line for _, document in move.documents for line in document["history"]]
        own: list[Mapping[str, Any]] = (
            parse_ref(stored[0], f"{place.uri}/{target}")["history"] if stored else []
        )
        document = {
            "format": 1,
            "catalog": catalog,
            "asset": move.asset,
            "partition": move.partition,
            "history": _once([*before, *own]),
        }
        data = written(document)
        if place.replace(target, data, stored[1]) if stored else place.create(target, data):
            place.delete([each for each, _ in move.documents if each != target])
            return
    raise StoreFailureError(f"{place.uri}/{target} was changed by others again and again")


def _once(lines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return list({line["id"]: line for line in lines}.values())


def _name(move: _Move) -> tuple[str, str | None]:
    return move.asset, move.partition
