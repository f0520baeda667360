"""What changes an input before a method sees it: adapters, gathered rows, packed models.

What is named here is imported when it is first used: most merges have no adapter.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from merge_ops.sources.lora.adapter_files import is_adapter
    from merge_ops.sources.lora.adapters import Adapter, open_adapter, read_adapter
    from merge_ops.sources.packed_index import PackedIndex
    from merge_ops.sources.packed_source import PackedSource

__all__ = ["Adapter", "PackedIndex", "PackedSource", "is_adapter", "open_adapter", "read_adapter"]

_MODULES = {
    "Adapter": "lora.adapters",
    "PackedIndex": "packed_index",
    "PackedSource": "packed_source",
    "is_adapter": "lora.adapter_files",
    "open_adapter": "lora.adapters",
    "read_adapter": "lora.adapters",
}


def __getattr__(name: str) -> object:
    """Return a public name, imported when it is first asked for. Raises AttributeError."""
    if name not in _MODULES:
        raise AttributeError(f"module 'merge_ops.sources' has no attribute {name!r}")
    return getattr(import_module(f"merge_ops.sources.{_MODULES[name]}"), name)
