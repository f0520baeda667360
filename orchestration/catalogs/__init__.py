"""The team's catalog: what its folder says, checked as a whole, and the partitions it gives."""

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
