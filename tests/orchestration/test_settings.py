"""Settings come from the environment, in one place, with every fault at once."""

import re
from pathlib import Path

import pytest

from orchestration.catalogs import CatalogError
from orchestration.catalogs.catalog_name import named_settings
from orchestration.settings import SettingsError, load_settings


def test_defaults_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert settings.catalog == tmp_path / "catalog"
    assert settings.store == (tmp_path / ".ronghe" / "store").as_uri()
    assert settings.dagster_home == tmp_path / ".ronghe" / "dagster"
    assert (settings.threads, settings.device, settings.ray) == (0, "auto", None)


def test_values_are_read(tmp_path: Path) -> None:
    settings = load_settings(
        {
            "RONGHE_CATALOG": str(tmp_path),
            "RONGHE_STORE": "s3://bucket/prefix",
            "RONGHE_THREADS": "3",
            "RONGHE_DEVICE": "cpu",
            "RONGHE_MEMORY": "2GiB",
            "RONGHE_RAY": "http://127.0.0.1:8265",
        }
    )
    assert settings.store == "s3://bucket/prefix"
    assert (settings.threads, settings.memory) == (3, 2 << 30)
    assert settings.ray == "http://127.0.0.1:8265"


def test_a_store_may_be_a_plain_path(tmp_path: Path) -> None:
    folder = tmp_path / "店 1"
    assert load_settings({"RONGHE_STORE": str(folder)}).store == folder.as_uri()


def test_all_faults_come_at_once() -> None:
    given = {
        "RONGHE_THREADS": "two",
        "RONGHE_DEVICE": "gpu",
        "RONGHE_MEMORY": "lots",
        "RONGHE_STROE": "x",
        "RONGHE_RAY": "ray://head:10001",
    }
    with pytest.raises(SettingsError) as caught:
        load_settings(given)
    message = str(caught.value)
    for part in (
        "RONGHE_THREADS is 'two'; it must be a whole number",
        "RONGHE_DEVICE is 'gpu'; it must be one of auto, cpu, cuda",
        "RONGHE_MEMORY is 'lots'; it must be a number of bytes",
        "RONGHE_RAY is 'ray://head:10001'; it must be the address of a Ray cluster's dashboard",
        "RONGHE_STROE is no setting. Did you mean 'RONGHE_STORE'?",
    ):
        assert part in message


def test_steps_are_processes_or_pods() -> None:
    assert not load_settings({}).pods
    assert load_settings({"RONGHE_STEPS": "pods"}).pods
    with pytest.raises(
        SettingsError, match="RONGHE_STEPS is 'pod'; it must be one of processes, p"
    ):
        load_settings({"RONGHE_STEPS": "pod"})
    with pytest.raises(
        SettingsError, match="RONGHE_RAY names a Ray cluster; steps run here or the"
    ):
        load_settings({"RONGHE_STEPS": "pods", "RONGHE_RAY": "http://127.0.0.1:8265"})


def test_an_address_of_ray_may_hold_no_password() -> None:
    with pytest.raises(SettingsError, match="RONGHE_RAY holds a user or a password") as caught:
        load_settings({"RONGHE_RAY": "https://me:hidden@head:8265"})
    assert "hidden" not in str(caught.value)


def test_a_process_elsewhere_can_be_given_the_same_settings(tmp_path: Path) -> None:
    given = {
        "RONGHE_CATALOG": str(tmp_path),
        "RONGHE_STORE": "s3://bucket/根",
        "RONGHE_THREADS": "3",
        "RONGHE_DEVICE": "cuda",
        "RONGHE_MEMORY": "2GiB",
        "RONGHE_RAY": "https://head/ray",
        "DAGSTER_HOME": str(tmp_path / "dagster"),
    }
    settings = load_settings(given)
    elsewhere = {**settings.as_environment(), "DAGSTER_HOME": str(tmp_path / "dagster")}
    assert set(elsewhere) == set(given)
    assert load_settings(elsewhere) == settings


def test_the_catalog_is_named_by_the_environment_its_file_or_its_place(tmp_path: Path) -> None:
    given = {"RONGHE_CATALOG": str(tmp_path / "my team")}
    place = named_settings(load_settings(given)).catalog_name
    assert place is not None
    assert re.fullmatch(r"my-team-[0-9a-f]{8}", place)
    assert named_settings(load_settings({"RONGHE_CATALOG": str(tmp_path)})).catalog_name != place
    said = load_settings({**given, "RONGHE_CATALOG_NAME": "ours"})
    assert named_settings(said).catalog_name == "ours"
    there = load_settings({**named_settings(load_settings(given)).as_environment()})
    assert there.catalog_name == place  # on another machine too

    (tmp_path / "my team").mkdir()
    models = tmp_path / "my team" / "models.yaml"
    models.write_text("name: 药材.v2\nmodels: [{name: base, source: base}]\n", encoding="utf-8")
    assert named_settings(load_settings(given)).catalog_name == "药材.v2"
    assert named_settings(said).catalog_name == "ours"
    for wrong, match in (
        ("12", "name is 12; it may have 1 to 100 letters"),
        ("a/b", "name is 'a/b'; it may have"),
        ("''", "name is ''; it may have"),
        ("..", r"name is '\.\.'; it may have"),
    ):
        text = f"name: {wrong}\nmodels: [{{name: base, source: base}}]\n"
        models.write_text(text, encoding="utf-8")
        with pytest.raises(CatalogError, match=match):
            named_settings(load_settings(given))
    models.write_text("name: [", encoding="utf-8")  # another name would lead to other refs
    with pytest.raises(CatalogError, match=r"models\.yaml"):
        named_settings(load_settings(given))
    with pytest.raises(SettingsError, match="RONGHE_CATALOG_NAME is 'a b'; it may have 1 to 100"):
        load_settings({"RONGHE_CATALOG_NAME": "a b"})


def test_pods_need_a_name(tmp_path: Path) -> None:
    given = {"RONGHE_CATALOG": str(tmp_path), "RONGHE_STEPS": "pods"}
    with pytest.raises(SettingsError, match=r"say `name: NAME` at the top of models\.yaml"):
        named_settings(load_settings(given))
    assert named_settings(load_settings({**given, "RONGHE_CATALOG_NAME": "x"})).catalog_name == "x"
