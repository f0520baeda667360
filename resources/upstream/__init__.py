"""Where upstream models come from: folders, S3, the Hugging Face Hub."""

from resources.upstream.folder_source import FolderModel
from resources.upstream.model_sources import open_model_source
from resources.upstream.source import FileSink, FileWriter, ModelSource, wanted_files

__all__ = [
    "FileSink",
    "FileWriter",
    "FolderModel",
    "ModelSource",
    "open_model_source",
    "wanted_files",
]
