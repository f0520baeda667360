"""The team's catalog: what its folder says, checked as a whole, and the partitions it gives.

What is named here is imported when it is first used. The partitions are Dagster's, whose import
takes a second, and most commands need the catalog's name alone.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestration.catalogs.catalog import BrokenPart, Catalog, CatalogError
    from orchestration.catalogs.loading import load_catalog
    from orchestration.catalogs.partitions import COEFFICIENT, EXPERTS, Partitions

__all__ = [
    "COEFFICIENT",
    "EXPERTS",
    "BrokenPart",
    "Catalog",
    "CatalogError",
    "Partitions",
    "load_catalog",
]

_PLACES = {
    "BrokenPart": "catalog",
    "Catalog": "catalog",
    "CatalogError": "catalog",
    "load_catalog": "loading",
}


def __getattr__(name: str) -> object:
    """A public name, imported when it is first asked for. Raises AttributeError for others."""
    if name not in __all__:
        raise AttributeError(f"module 'orchestration.catalogs' has no attribute {name!r}")
    module = import_module(f"{__name__}.{_PLACES.get(name, 'partitions')}")
    return getattr(module, name)
