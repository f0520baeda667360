"""The artifact store as a Dagster resource."""

from pathlib import Path

import dagster as dg
from pydantic import Field

from resources.store.artifact_store import ArtifactStore
from resources.store.cache import DEFAULT_BYTES


class StoreResource(dg.ConfigurableResource):
    """Where artifacts are kept. It holds no secret: S3 credentials come from the AWS chain."""

    uri: str = Field(
        description="Root of the artifact store: file:///absolute/folder or s3://bucket/prefix."
    )
    cache: str = Field(
        default="",
        description="Folder that artifacts of an S3 store are pulled to for programs that need "
        "local files; empty for ~/.cache/ronghe/artifacts.",
    )
    cache_bytes: int = Field(
        default=DEFAULT_BYTES, description="Size in bytes that this folder stays near.", gt=0
    )

    def open(self) -> ArtifactStore:
        """Open the store, without contact yet; StoreAddressError when the URI is not allowed."""
        return ArtifactStore.open(
            self.uri, Path(self.cache).expanduser() if self.cache else None, self.cache_bytes
        )
