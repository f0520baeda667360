"""What may leave the store, and as which files. Knows no Dagster.

A model leaves whole or not at all. What rests on something withdrawn does not, nor does what is
made of models whose licences do not go together, unless its recipe accepts that by name.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work.ranking import licensing
from assets.work.records.stored_names import Named, names_of
from assets.work.records.withdrawal import rests_on, told
from assets.work.sharing.cards import CARD, card_leaving
from merge_ops.errors import LicenceConflictError
from resources.errors import WithdrawnError
from resources.outbound import OutgoingFile

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel
    from resources.reading import FileSource
    from resources.store import ArtifactStore, Ref

_NO_TAG = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True)
class Outgoing:
    """A model that may leave: its name, digest, licences and the models in it.

    `config` is what model-spec's config says of it.
    """

    name: str
    digest: str
    licence: str
    models: Mapping[str, str]
    tag: str
    created: str

    @property
    def config(self) -> dict[str, Any]:
        """Return the descriptor and the config of CNCF's model-spec."""
        described: dict[str, Any] = {"name": self.name, "revision": self.digest}
        if self.created:
            described["createdAt"] = self.created
        if self.licence:
            described["licenses"] = [self.licence]
        return {
            "descriptor": described,
            "config": {"architecture": "transformer", "format": "safetensors"},
        }


def check_outgoing(
    store: "ArtifactStore", named: Named, what: str, accepted: Collection[str] = ()
) -> Outgoing:
    """Return what is said of a model that leaves.

    `what` says what is not done otherwise, such as `ties/champion is not pushed`; `accepted` are
    conflicts of licences that its recipe accepts. Raises WithdrawnError and LicenceConflictError.
    """
    resting = rests_on(store, [named.digest])
    if resting:
        raise WithdrawnError(
            f"{what}: it rests on what was withdrawn ({told(resting[named.digest])});"
            " `ronghe withdraw NAME --undo --because …` takes that back"
        )
    standing = licensing.standing_of(store, named.digest)
    conflicts = standing.licence.open_conflicts(accepted)
    ref = said_by(store, named)
    recipe = ref.asset.split("/")[0] if ref is not None and "/" in ref.asset else "the recipe"
    if conflicts:
        raise LicenceConflictError(f"{what}: {licensing.told(conflicts, recipe)}")
    models = ref.fields.get("models") if ref is not None else None
    deciding = standing.licence.licence
    created = str(store.get(named.kind, named.digest).manifest.get("created", ""))
    tag = _NO_TAG.sub("-", named.name).strip("-.") or named.digest[:12]
    return Outgoing(
        named.name,
        named.digest,
        (deciding.spdx or deciding.id) if deciding.known else "",
        dict(models) if isinstance(models, dict) else {},
        tag[:128],
        created,
    )


def said_by(store: "ArtifactStore", named: Named) -> "Ref | None":
    """Return the ref that says what the catalog calls the models in it; a champion's does not."""
    if named.ref is not None and "models" in named.ref.fields:
        return named.ref
    refs = [each.ref for each in names_of(store, named.digest) if each.ref is not None]
    return next((ref for ref in refs if "models" in ref.fields), named.ref)


def outgoing_files(
    store: "ArtifactStore",
    named: Named,
    model: "StoredModel",
    source: "FileSource",
    called: str,
    titles: Mapping[str, Mapping[str, str]] | None = None,
) -> list[OutgoingFile]:
    """Return the files of a model as they leave: all as they are, but for a checkpoint's card.

    `source` is the model's, open. `called` is what loads the model then, such as its repository,
    `titles` what the catalog's `recipes` and `models` are called for people.
    """
    own = _read_whole(source, model, CARD) if CARD in model.files else b""
    card = card_leaving(store, named, said_by(store, named), called, own, titles)
    files = [
        OutgoingFile(path, record.size, source)
        for path, record in model.files.items()
        if path != CARD or card is None
    ]
    return [*files, OutgoingFile(CARD, len(card), data=card)] if card is not None else files


def _read_whole(source: "FileSource", model: "StoredModel", path: str) -> bytes:
    data = bytearray(model.files[path].size)
    if data:
        source.read_into(path, 0, memoryview(data))
    return bytes(data)
