"""What stored models say of themselves: their cards and licence files. Knows no Dagster.

Beside every model lies a small artifact whose manifest holds the facts: so those of a thousand
models are read at once. It is made when somebody first asks.
"""

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

from blake3 import blake3

from assets.work.upstream.packed_models import MODEL, PACKED, as_it_was
from merge_ops.errors import AncestryError, CheckpointError
from merge_ops.provenance.upstream_card import CardFacts, read_facts

if TYPE_CHECKING:
    from resources.store import Artifact, ArtifactStore

CARD_FACTS, FILE, FIELD = "card_facts", "card.json", "facts"
FACTS_VERSION = 1
"""Raise it when the same files would be read otherwise, as with a heading more in licences.yaml."""


def facts_of(store: "ArtifactStore", artifact: "Artifact") -> CardFacts:
    """Return what a stored model says of itself, and keep it for the next time."""
    from resources.errors import ArtifactReadError, ResourceError

    known = facts_by_digest(store, [artifact.digest], make=False).get(artifact.digest)
    if known is not None:
        return known
    try:
        model = as_it_was(store, artifact)
        sizes = {name: file.size for name, file in model.files.items()}
        with model.source() as source:
            facts = read_facts(source, sizes)
    except (CheckpointError, ArtifactReadError, ResourceError) as error:
        return CardFacts(problem=f"cannot be read: {error}")
    if facts.problem is None:
        document = facts.to_json()
        # Whoever may only read the store reads them from the model each time.
        with suppress(ResourceError), store.attempt(CARD_FACTS) as attempt:
            attempt.write_json(FILE, document)
            attempt.publish(_key(artifact.digest), **{FIELD: document})
    return facts


def facts_by_digest(
    store: "ArtifactStore", digests: Iterable[str], make: bool = True
) -> dict[str, CardFacts]:
    """Return what stored models say of themselves, by digest, all read at once.

    With `make` those that nobody asked for yet are read from the models. What is no model, or is
    not there any more, has none.
    """
    wanted = {_key(digest): digest for digest in digests}
    read = store.upkeep.read_manifests([(CARD_FACTS, key) for key in wanted])
    found: dict[str, CardFacts] = {}
    for (_, key), manifest in read.items():
        try:
            found[wanted[key]] = CardFacts.from_json(manifest[FIELD])
        except (AncestryError, KeyError, TypeError):  # of another release, or damaged: read again
            continue
    for digest in [each for each in wanted.values() if make and each not in found]:
        artifact = store.find(MODEL, digest) or store.find(PACKED, digest)
        if artifact is not None:
            found[digest] = facts_of(store, artifact)
    return found


def _key(digest: str) -> str:
    return blake3(f"{FACTS_VERSION} {digest}".encode()).hexdigest()
