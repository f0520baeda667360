"""The format of a checkpoint folder: headers, layout, tensors, configs, pickled weights."""

from typing import TYPE_CHECKING

from merge_ops.checkpoints.byte_sources import ByteSource, FolderSink, FolderSource
from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.opening import open_checkpoint

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.checkpoints import (
        bounded_yaml,
        folder_facts,
        folder_verdict,
        pickled_weights,
        plain_files,
    )

__all__ = [
    "ByteSource",
    "Checkpoint",
    "FolderSink",
    "FolderSource",
    "bounded_yaml",
    "folder_facts",
    "folder_verdict",
    "open_checkpoint",
    "pickled_weights",
    "plain_files",
]
