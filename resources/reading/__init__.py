"""Bytes of published artifacts, checked while they are read, and of models far away by ranges."""

from resources.reading.artifact_source import ArtifactSource
from resources.reading.far_bytes import FarBytes
from resources.reading.records import FileRecord, Progress, content_digest
from resources.reading.sources import FileSource, Published

__all__ = [
    "ArtifactSource",
    "FarBytes",
    "FileRecord",
    "FileSource",
    "Progress",
    "Published",
    "content_digest",
]
