"""What lies in a part of the catalog's folder; a part that cannot be listed is not an empty one."""

import os
from pathlib import Path

from merge_ops.errors import Fault
from orchestration.catalogs.catalog import CatalogError


def list_part(folder: Path) -> list[Path]:
    """List a part of the catalog (recipes, suites, scores), sorted; nothing where it has none.

    Raises CatalogError where it is there and cannot be listed: a dead link, a file, no permission.
    What is in it would be taken for removed.
    """
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        if not folder.is_symlink():
            return []
        problem = f"is a link to {os.readlink(folder)}, which is not there"
    except NotADirectoryError:
        problem = "is no folder"
    except OSError as error:
        problem = f"cannot be listed: {error.strerror}"
    way_out = "mend it, or remove it if the catalog is to have none"
    raise CatalogError(
        f"catalog {folder.parent}", [Fault(f"{folder.name}/", f"{problem}; {way_out}")]
    )
