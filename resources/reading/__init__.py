"""Bytes of published artifacts, checked while they are read."""

from resources.reading.artifact_source import ArtifactSource
from resources.reading.records import FileRecord, Progress, content_digest
from resources.reading.sources import FileSource, Published

__all__ = [
    "ArtifactSource",
    "FileRecord",
    "FileSource",
    "Progress",
    "Published",
    "content_digest",
]
