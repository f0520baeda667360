"""From a store to the site in the store: rendered when what it shows has changed. No Dagster."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.site.collecting import EarlierSite, collect_view
from assets.site.data_files import FOLDER, earlier_records
from assets.site.facts import SITE_VERSION, CatalogFacts
from assets.site.pages import INDEX, site_files
from assets.site.sections.changes import Failure
from resources.errors import (
    ContentConflictError,
    DamagedArtifactError,
    MissingArtifactError,
)

if TYPE_CHECKING:
    from assets.site.view import CatalogView
    from resources.store import Artifact, ArtifactStore

CATALOG_SITE, SITE = "catalog_site", "site"
"""What the asset is called, and the kind of its artifact."""
_READ_AGAIN = ("models-", "checkpoints-", "site.")


@dataclass(frozen=True)
class PublishedSite:
    """The site in the store, and what it shows; `memoized` where nothing had changed.

    `seconds` are those of collecting and of rendering.
    """

    artifact: "Artifact"
    view: "CatalogView"
    memoized: bool
    seconds: tuple[float, float]

    @property
    def index(self) -> str:
        """Where the first page is: a path of this machine, or a key below the store's address."""
        return index_of(self.artifact)


def publish_site(
    store: "ArtifactStore",
    facts: CatalogFacts,
    failures: Iterable[Failure] = (),
    run: str | None = None,
) -> PublishedSite:
    """Render the site of a catalog into the store, and point `catalog_site` to it.

    Equal sites are one artifact: where nothing has changed, nothing is written. Raises StoreError
    where the store does not answer.
    """
    started = time.perf_counter()
    view = collect_view(store, facts, failures, earlier_site(store))
    collected = time.perf_counter()
    files = list(site_files(view))
    digest = site_digest(files)
    artifact, memoized = store.find(SITE, digest), True
    if artifact is None:
        artifact, memoized = _publish(store, files, digest), False
    store.point(CATALOG_SITE, None, SITE, digest, run=run)
    seconds = collected - started, time.perf_counter() - collected
    return PublishedSite(artifact, view, memoized, seconds)


def earlier_site(store: "ArtifactStore") -> EarlierSite:
    """Read what the site before knows; nothing where there is none or it cannot be read."""
    try:
        artifact = store.resolve(CATALOG_SITE)
        if artifact is None or artifact.manifest.get("site_version") != SITE_VERSION:
            return EarlierSite()
        names = (name for name in artifact.files if name.startswith(f"{FOLDER}/"))
        wanted = [name for name in names if name.removeprefix(f"{FOLDER}/").startswith(_READ_AGAIN)]
        return EarlierSite(**earlier_records({n: artifact.read_bytes(n) for n in wanted}))
    except (DamagedArtifactError, MissingArtifactError, ValueError, KeyError, TypeError):
        return EarlierSite()


def site_digest(files: Iterable[tuple[str, bytes]]) -> str:
    """Return the digest of a site's files."""
    from blake3 import blake3

    whole = blake3()
    for path, data in sorted(files):
        whole.update(f"{path}\0{blake3(data).hexdigest()}\n".encode())
    return whole.hexdigest()


def index_of(artifact: "Artifact") -> str:
    """Return where the site's first page lies: a local path, or the address of its object."""
    root = artifact.uri.split("/artifacts/")[0]
    if root.startswith("file:"):
        return str(artifact.folder(checked=False) / INDEX)
    return f"{root}/{artifact.key(INDEX)}"


def _publish(store: "ArtifactStore", files: Iterable[tuple[str, bytes]], digest: str) -> "Artifact":
    with store.attempt(SITE) as attempt:
        for path, data in files:
            attempt.write_bytes(path, data)
        try:
            return attempt.publish(digest, site_version=SITE_VERSION)
        except ContentConflictError:  # never by equal files; what is there has the same digest
            return store.get(SITE, digest)
