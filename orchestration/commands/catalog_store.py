"""The catalog's artifact store, as the commands open it, with the catalog's own names."""

from orchestration.catalogs.catalog_name import named_settings
from orchestration.settings import Settings, load_settings
from resources.store import ArtifactStore


def open_store(settings: Settings | None = None, *, may_be_new: bool = False) -> ArtifactStore:
    """Open the store of the settings (None: the environment's) for the refs of their catalog.

    Raises SettingsError, CatalogError where models.yaml does not tell the catalog's name, and
    StoreAddressError where no store can be, as behind a dead link; unless it `may_be_new`, also
    where nothing was ever kept: an empty folder is no store of which all is well.
    """
    settings = named_settings(settings or load_settings())
    store = ArtifactStore.open(settings.store, catalog=settings.catalog_name)
    store.upkeep.require(may_be_new)
    return store
