"""A part of the catalog's folder that cannot be listed is a fault, not a smaller catalog."""

from pathlib import Path

import pytest

from orchestration.catalogs import CatalogError, load_catalog
from tests.orchestration.projects.tiny_project import AVERAGE, TinyProject, make_project
from tests.servers.privileges import permissions_count


@pytest.fixture
def project(tmp_path: Path) -> TinyProject:
    return make_project(tmp_path, {"average": AVERAGE}, experts=2)


@pytest.mark.parametrize("part", ["recipes", "suites", "scores"])
def test_dead_links_and_files(project: TinyProject, part: str) -> None:
    folder = project.catalog / part
    if folder.exists():
        folder.rename(project.root / "was")
    folder.symlink_to("/nowhere/at/all")
    with pytest.raises(CatalogError, match=rf"{part}/ is a link to /nowhere/at/all, which is not"):
        load_catalog(project.catalog)
    folder.unlink()
    folder.write_text("")
    with pytest.raises(CatalogError, match=rf"{part}/ is no folder; mend it, or remove it"):
        load_catalog(project.catalog)


def test_a_folder_without_permission(project: TinyProject) -> None:
    folder = project.catalog / "recipes"
    folder.chmod(0)
    try:
        with permissions_count(), pytest.raises(CatalogError, match="recipes/ cannot be listed"):
            load_catalog(project.catalog)
    finally:
        folder.chmod(0o755)
    assert list(load_catalog(project.catalog).recipes) == ["average"]


def test_what_is_not_there_is_not_wanted(project: TinyProject) -> None:
    assert load_catalog(project.catalog).imported == {}
