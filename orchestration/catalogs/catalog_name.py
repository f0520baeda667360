"""What a catalog is called in a store: the namespace of its refs.

Two catalogs on one store must not be called the same, and one catalog must be called the same
wherever it runs. So a name that is said wins: RONGHE_CATALOG_NAME, or `name:` in models.yaml.
Else it is made of the folder's name, and of a hash of the machine's name and the folder's path.
"""

import dataclasses
import re
import socket
import unicodedata
from pathlib import Path

from blake3 import blake3

from merge_ops.errors import Fault, SettingsError
from orchestration.settings import Settings


def default_catalog_name(folder: Path) -> str:
    """Name a catalog that does not name itself: no other folder or machine gives this name."""
    machine_and_path = f"{socket.gethostname()}\n{folder.absolute()}"
    told = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", folder.absolute().name))
    told = told.lstrip(".-")[:80] or "catalog"
    return f"{told}-{blake3(machine_and_path.encode()).hexdigest()[:8]}"


def catalog_name(settings: Settings, declared: str | None) -> str:
    """Return what the catalog of these settings is called; `declared` is what models.yaml says.

    SettingsError is raised where each step is a pod, whose machine and folder say nothing, and no
    name is said.
    """
    name = settings.catalog_name or declared
    if name is not None:
        return name
    if settings.pods:
        problem = (
            "is not set, and models.yaml says no `name:`. Each step is a pod with a host name of"
            " its own, so the catalog has to be named: say `name: NAME` at the top of models.yaml"
        )
        raise SettingsError("the environment", [Fault("RONGHE_CATALOG_NAME", problem)])
    return default_catalog_name(settings.catalog)


def named_settings(settings: Settings) -> Settings:
    """Return the settings with the catalog's name in them, from models.yaml where they have none.

    Raises CatalogError where models.yaml says none that can be read, as `catalog_name` does too.
    """
    from orchestration.catalogs.models_file import declared_name

    if settings.catalog_name is not None:
        return settings
    name = catalog_name(settings, declared_name(settings.catalog))
    return dataclasses.replace(settings, catalog_name=name)
