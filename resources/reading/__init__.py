"""Bytes of published artifacts, checked while they are read."""

from resources.reading.artifact_source import ArtifactSource, Published
from resources.reading.records import FileRecord, Progress, content_digest

__all__ = ["ArtifactSource", "FileRecord", "Progress", "Published", "content_digest"]
