"""What changes an input before a method sees it: adapters, gathered rows, packed models."""

from merge_ops.sources.adapter_files import is_adapter
from merge_ops.sources.adapters import Adapter, open_adapter, read_adapter
from merge_ops.sources.packed_index import PackedIndex
from merge_ops.sources.packed_source import PackedSource

__all__ = ["Adapter", "PackedIndex", "PackedSource", "is_adapter", "open_adapter", "read_adapter"]
