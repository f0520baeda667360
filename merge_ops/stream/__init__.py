"""The one loop that reads blocks, merges them and hands them out in order."""

from merge_ops.stream.cores import torch_threads, usable_cores
from merge_ops.stream.device import arithmetic_kind, choose_device
from merge_ops.stream.room import machine_memory
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.stream import BlockStream, can_do_without_torch, check_settings

__all__ = [
    "BlockStream",
    "StreamSettings",
    "arithmetic_kind",
    "can_do_without_torch",
    "check_settings",
    "choose_device",
    "machine_memory",
    "torch_threads",
    "usable_cores",
]
