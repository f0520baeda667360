"""The format of a checkpoint folder: headers, layout, tensors, configs, pickled weights."""

from typing import TYPE_CHECKING

from merge_ops.checkpoints.bounded_yaml import DocumentError, read_documents
from merge_ops.checkpoints.byte_sources import ByteSource, FolderSink, FolderSource
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.opening import open_checkpoint

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.checkpoints import folder_facts, folder_verdict, pickled_weights

__all__ = [
    "ByteSource",
    "Checkpoint",
    "DocumentError",
    "FolderSink",
    "FolderSource",
    "folder_facts",
    "folder_verdict",
    "open_checkpoint",
    "pickled_weights",
    "read_documents",
]
