"""The format of a checkpoint folder: headers, layout, tensors, configs, pickled weights."""

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSource, FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint

__all__ = ["ByteSource", "Checkpoint", "FolderSink", "FolderSource", "open_checkpoint"]
