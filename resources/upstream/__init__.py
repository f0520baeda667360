"""Where upstream models come from: folders, S3, the Hugging Face Hub, ModelScope."""

from resources.upstream.far_model import FarModel, download_text
from resources.upstream.folder_source import FolderModel
from resources.upstream.model_sources import FAR_SCHEMES, open_far_model, open_model_source
from resources.upstream.source import FileSink, FileWriter, ModelSource, wanted_files

__all__ = [
    "FAR_SCHEMES",
    "FarModel",
    "FileSink",
    "FileWriter",
    "FolderModel",
    "ModelSource",
    "download_text",
    "open_far_model",
    "open_model_source",
    "wanted_files",
]
