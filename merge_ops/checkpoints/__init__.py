"""The format of a checkpoint folder: headers, layout, tensors, configs, pickled weights."""

from merge_ops.checkpoints.bounded_yaml import DocumentError, read_documents
from merge_ops.checkpoints.byte_sources import ByteSource, FolderSink, FolderSource
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.depth import Position
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.checkpoints.pickled_weights import convert_folder, is_pickled

__all__ = [
    "ByteSource",
    "Checkpoint",
    "DocumentError",
    "FolderSink",
    "FolderSource",
    "Position",
    "convert_folder",
    "is_pickled",
    "open_checkpoint",
    "read_documents",
]
