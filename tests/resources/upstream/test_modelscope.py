"""Models of ModelScope: pinned, checked by SHA-256, gone on with where a download broke off."""

from pathlib import Path

import pytest

from resources.errors import MissingSourceError, ModelSourceError
from resources.store.artifact_store import ArtifactStore
from resources.upstream import download_text, open_model_source
from resources.upstream.modelscope_source import ModelScopeModel
from tests.resources.modelscope_server import HEAD, Scope, running_modelscope
from tests.resources.upstream_models import TAKEN, write_model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model's folder, as it was uploaded."""
    write_model(tmp_path / "uploaded")
    return tmp_path / "uploaded"


@pytest.fixture
def scope(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A server that has it, as `team/model`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("resources.upstream.modelscope_source._PAUSE", 0.0)
    with running_modelscope({"team/model": folder}) as running:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", running.endpoint)
        yield running


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_model_is_pulled_into_the_store(scope: Scope, folder: Path, tmp_path: Path) -> None:
    source = open_model_source("modelscope://team/model", tmp_path)
    assert source.revision() == HEAD
    assert source.resolved() == f"modelscope://team/model@{HEAD}"
    told = download_text(source)
    assert told is not None
    assert told.startswith(f"downloading modelscope://team/model@{HEAD}: 0.0 MB in {len(TAKEN)} ")
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    with store.attempt("checkpoint") as attempt:
        source.copy_to(attempt)
        artifact = attempt.publish()
    assert set(artifact.files) == TAKEN
    assert artifact.content_digest == open_model_source(str(folder), tmp_path).revision()


def test_a_copy_is_kept_and_found_again(scope: Scope, folder: Path) -> None:
    kept = ModelScopeModel("team/model").fetch()
    assert files_of(kept) == {name: (folder / name).read_bytes() for name in TAKEN}
    seen = len(scope.requests)
    for revision in ("", "@master", f"@{HEAD}"):
        again = ModelScopeModel(f"team/model{revision}")
        assert again.cached() == kept
        assert again.resolved() == f"modelscope://team/model@{HEAD}"
    assert len(scope.requests) == seen
    assert ModelScopeModel("team/model@v1").cached() is None


def test_a_download_goes_on_where_it_broke_off(scope: Scope, folder: Path) -> None:
    scope.cut = 7_000
    kept = ModelScopeModel("team/model").fetch()
    assert (kept / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("ranges", [True, False])
def test_a_later_try_goes_on_too(scope: Scope, folder: Path, ranges: bool) -> None:
    scope.cut, scope.ranges = 0, ranges
    with pytest.raises(ModelSourceError, match=r"ended .* bytes too early"):
        ModelScopeModel("team/model").fetch()
    scope.cut = None
    source = ModelScopeModel("team/model")
    (pulling,) = source.kept_in.glob("pulling/*")
    assert list(pulling.rglob("*.unfinished"))
    (pulling / "model.safetensors.unfinished").write_bytes(
        (folder / "model.safetensors").read_bytes()[:5_000]
    )
    kept = source.fetch()
    assert (kept / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    asked = [headers.get("Range") for headers in scope.elsewhere]
    assert asked[-1] == "bytes=5000-19999"
    assert not list(source.kept_in.glob("pulling/*"))


def test_other_bytes_than_are_there_are_refused(scope: Scope, tmp_path: Path) -> None:
    scope.wrong = True
    with pytest.raises(ModelSourceError, match="arrived with other bytes than are there; check"):
        ModelScopeModel("team/model").fetch()
    store = ArtifactStore.open((tmp_path / "store").as_uri())
    with (
        store.attempt("checkpoint") as attempt,
        pytest.raises(ModelSourceError, match="arrived with other bytes than are there; check"),
    ):
        ModelScopeModel("team/model").copy_to(attempt)
    scope.wrong = False
    assert ModelScopeModel("team/model").fetch().is_dir()


def test_a_token_stays_with_modelscope(scope: Scope, monkeypatch) -> None:
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "hidden-secret")
    ModelScopeModel("team/model").fetch()
    assert all("hidden-secret" in str(headers) for _, headers in scope.requests)
    assert scope.elsewhere
    assert "hidden-secret" not in str(scope.elsewhere)


def test_without_a_commit_the_list_is_the_revision(scope: Scope, folder: Path) -> None:
    scope.commit_told = False
    source = ModelScopeModel("team/model")
    before = source.revision()
    assert len(before) == 64
    assert source.resolved() == "modelscope://team/model@master"
    (folder / "config.json").write_text("another")
    assert ModelScopeModel("team/model").revision() != before


def test_what_is_not_there(scope: Scope, monkeypatch) -> None:
    for name, said in (("team/none", "is not on ModelScope"), ("team/model@v9", r"\(v9\)")):
        with pytest.raises(MissingSourceError, match=said):
            ModelScopeModel(name).revision()
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ModelSourceError, match=r"cannot be reached \(URLError\); check the net"):
        ModelScopeModel("team/model").revision()


def test_a_proxy_and_the_older_variable(scope: Scope, monkeypatch) -> None:
    monkeypatch.delenv("MODELSCOPE_ENDPOINT")
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "mirror.example")
    assert ModelScopeModel("team/model").home == "https://mirror.example"
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "http://mirror.invalid")
    monkeypatch.setenv("http_proxy", scope.endpoint)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert ModelScopeModel("team/model").revision() == HEAD
