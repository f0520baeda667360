"""Where upstream models come from: folders, S3, the Hugging Face Hub, ModelScope."""

from resources.upstream.bucket_folder import BucketFolder
from resources.upstream.far_model import FarModel, download_text
from resources.upstream.folder_source import FolderModel
from resources.upstream.model_sources import FAR_SCHEMES, open_far_model, open_model_source
from resources.upstream.source import FileSink, FileWriter, ModelSource

__all__ = [
    "FAR_SCHEMES",
    "BucketFolder",
    "FarModel",
    "FileSink",
    "FileWriter",
    "FolderModel",
    "ModelSource",
    "download_text",
    "open_far_model",
    "open_model_source",
]
