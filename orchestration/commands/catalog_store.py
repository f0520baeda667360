"""The catalog's artifact store, as the commands open it, with the catalog's own names."""

from orchestration.catalogs.catalog_name import named_settings
from orchestration.settings import Settings, load_settings
from resources.store import ArtifactStore


def open_store(settings: Settings | None = None) -> ArtifactStore:
    """Open the store of the settings (None: the environment's) for the refs of their catalog.

    Raises SettingsError, and CatalogError where models.yaml does not tell the catalog's name.
    """
    settings = named_settings(settings or load_settings())
    return ArtifactStore.open(settings.store, catalog=settings.catalog_name)
