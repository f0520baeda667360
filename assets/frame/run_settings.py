"""The resource every asset takes: the artifact store and how to compute."""

from functools import lru_cache
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

if TYPE_CHECKING:
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore


class RunSettings(dg.ConfigurableResource):
    """Where artifacts live and how to compute; the same on every machine that runs steps."""

    store_uri: str = Field(description="Artifact store: file:///path or s3://bucket/prefix.")
    catalog: str = Field(
        default="", description="What the catalog is called in the store: its refs' namespace."
    )
    catalog_folder: str = Field(description="Folder that relative model sources start from.")
    device: str = Field(default="auto", description="auto, cpu or cuda.")
    threads: int = Field(default=0, description="Worker threads of a merge; 0 for one a core.")
    memory: int = Field(default=512 << 20, description="Bound of a merge's buffers, in bytes.")

    def store(self) -> "ArtifactStore":
        """Open the artifact store, once a process."""
        return _open(self.store_uri, self.catalog)

    def stream(self) -> "StreamSettings":
        """Return how a merge is to be run."""
        from merge_ops.stream import StreamSettings

        return StreamSettings(threads=self.threads, device=self.device, memory=self.memory)


@lru_cache(maxsize=8)
def _open(uri: str, catalog: str) -> "ArtifactStore":
    from resources.store import ArtifactStore

    return ArtifactStore.open(uri, catalog=catalog or None)
