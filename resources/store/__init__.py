"""The artifact store: attempts, artifacts, refs, the cache, and garbage collection."""

from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from resources.store.attempts.attempt import Attempt
from resources.store.attempts.gc import GcReport
from resources.store.attempts.unfinished import Unfinished
from resources.store.cache import FolderCache, Pin
from resources.store.ref_documents import Ref, RefEntry
from resources.store.refs import RefTable

__all__ = [
    "Artifact",
    "ArtifactStore",
    "Attempt",
    "FolderCache",
    "GcReport",
    "Pin",
    "Ref",
    "RefEntry",
    "RefTable",
    "Unfinished",
]
