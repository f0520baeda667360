"""What a checkpoint was made of, and what a model went into, by digest. Knows no Dagster.

Manifests tell the edges, for they follow from content. Refs tell what a catalog calls a content,
where it came from and what licence the catalog says it has.
"""

from typing import TYPE_CHECKING

from merge_ops.provenance.ancestry import Ancestry, Descendant

if TYPE_CHECKING:
    from resources.store import ArtifactStore


def lineage(store: "ArtifactStore", name_or_digest: str) -> Ancestry:
    """Return everything that a name or a digest was made of, down to the models that were pulled.

    Raises MissingArtifactError where the name stands for nothing.
    """
    raise NotImplementedError


def impact(store: "ArtifactStore", model: str) -> list[Descendant]:
    """Return everything in the store that a model went into, the nearest first.

    `model` is a model's name or a digest, or what a recipe made. All its contents count, those that
    the name stood for earlier too. Raises MissingArtifactError where it stands for nothing.
    """
    raise NotImplementedError
