"""The one loop that reads blocks, merges them and hands them out in order."""

from typing import TYPE_CHECKING

from merge_ops.kernels.cores import torch_threads, usable_cores
from merge_ops.stream.device import arithmetic_kind, can_do_without_torch, choose_device
from merge_ops.stream.room import machine_memory
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.stream import BlockStream, check_settings

if TYPE_CHECKING:  # a module, imported when it is asked for
    from merge_ops.stream import router_rows

__all__ = [
    "BlockStream",
    "StreamSettings",
    "arithmetic_kind",
    "can_do_without_torch",
    "check_settings",
    "choose_device",
    "machine_memory",
    "router_rows",
    "torch_threads",
    "usable_cores",
]
