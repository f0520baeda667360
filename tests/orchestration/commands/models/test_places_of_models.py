"""Where `ronghe merge` and `plan` find a model: hubs of several kinds, buckets, proxies."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from merge_ops.errors import MissingModelError
from orchestration.commands.models.model_references import resolve
from tests.merges.merging import ronghe
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.models.checkpoint_factory import (
    Shape,
    base_tensors,
    write_checkpoint,
)
from tests.orchestration.commands.models.named_models import (
    BIO,
    INSTRUCT,
    MISTRAL,
    at,
    averaged,
    check_average,
    mean,
    origins,
    recipe,
    snapshot,
)
from tests.resources.hub_server import COMMIT, Hub, running_hub_of
from tests.resources.modelscope_server import HEAD, running_modelscope


def test_branches_tags_and_commits(models, tmp_path: Path) -> None:
    branches = {"main": models[MISTRAL], "v2": models[INSTRUCT], "v3": models[BIO]}
    with running_hub_of({"team/model": branches}) as hub:
        commits = hub.commits["team/model"]
        pinned = f"team/model@{commits['v3']}"
        config = recipe(tmp_path, mean("team/model", "team/model@v2", pinned))
        environment = at(hub.endpoint, tmp_path)
        planned = ronghe("plan", config, "--json", environment=environment)
        assert planned.returncode == 0, planned.stderr
        assert origins(json.loads(planned.stdout)) == [
            f"hf://team/model@{commits[each]}" for each in ("main", "v2", "v3")
        ]
        done = ronghe("merge", config, tmp_path / "out", environment=environment)
        assert done.returncode == 0, done.stderr
        check_average(tmp_path / "out", *branches.values())
        gone = recipe(tmp_path, mean("team/model", "team/model@v9"), "gone")
        said = ronghe("plan", gone, environment=environment).stderr
    assert "'team/model@v9': there is no folder" in said
    assert "hf://team/model@v9 is not on the Hub, or is private; correct the name or the" in said


def test_absent_gated_and_unsized_models(models, tmp_path: Path) -> None:
    with running_hub_of(models, gated=[BIO], sizes=False) as hub:
        environment = at(hub.endpoint, tmp_path)
        config = recipe(tmp_path, mean("team/none", BIO))
        said = ronghe("plan", config, environment=environment).stderr
        assert f"hf://{BIO} is gated: accept its licence" in said
        assert "hf://team/none is not on the Hub, or is private" in said
        config = recipe(tmp_path, mean(MISTRAL, INSTRUCT))
        said = ronghe("plan", config, environment=environment).stderr
        assert "does not tell how large its files are; download it with `hf download" in said


def test_a_hub_that_gives_no_parts_of_files(tmp_path: Path) -> None:
    large = Shape("llama", layers=400, hidden=8, intermediate=8, heads=2, kv_heads=2)
    folder = write_checkpoint(tmp_path / "large", base_tensors(large), large)
    config = recipe(tmp_path, mean("team/large"))
    for ranges in (True, False):
        with running_hub_of({"team/large": folder}, ranges=ranges) as hub:
            said = ronghe("plan", config, environment=at(hub.endpoint, tmp_path))
        assert said.returncode == (0 if ranges else 2), said.stderr
        assert ("gives no parts of files; download the model first" in said.stderr) != ranges


def test_a_proxy_is_used(hub: Hub, models, tmp_path: Path) -> None:
    """The hub here is known to the proxy alone."""
    for name in ("http_proxy", "HTTP_PROXY"):
        proxied = at("http://hub.invalid", tmp_path, no_proxy="", **{name: hub.endpoint})
        config = recipe(tmp_path, mean(MISTRAL, BIO))
        done = ronghe("merge", config, tmp_path / name / "out", environment=proxied)
        assert done.returncode == 0, done.stderr
        check_average(tmp_path / name / "out", models[MISTRAL], models[BIO])
        shutil.rmtree(tmp_path / "hf")


def test_adapters_of_the_hub(models, tmp_path: Path) -> None:
    """An adapter and its base, each from its own place."""
    base = models[MISTRAL]
    weights = load_file(base / "model.safetensors")
    write_adapter(tmp_path / "lora", lora_tensors(weights, modules_of(weights, "q_proj"), 8))
    shutil.copytree(base, tmp_path / "here")
    with running_hub_of({"team/base": base, "team/lora": tmp_path / "lora"}) as hub:
        environment = at(hub.endpoint, tmp_path)
        config = recipe(tmp_path, mean("team/base+team/lora"))
        planned = ronghe("plan", config, "--json", environment=environment)
        assert planned.returncode == 0, planned.stderr
        assert origins(json.loads(planned.stdout)) == [
            [f"hf://team/base@{COMMIT}", f"hf://team/lora@{COMMIT}"]
        ]
        done = ronghe("merge", config, tmp_path / "far", environment=environment)
        assert done.returncode == 0, done.stderr
    config = recipe(tmp_path, mean(f"{tmp_path}/here+{tmp_path}/lora"))
    done = ronghe("merge", config, tmp_path / "near")
    assert done.returncode == 0, done.stderr
    near = averaged(tmp_path / "near")
    assert all(torch.equal(near[name], each) for name, each in averaged(tmp_path / "far").items())
    front = yaml.safe_load((tmp_path / "far" / "README.md").read_text().split("---")[1])
    assert front["base_model"] == ["team/base", "team/lora"]


def test_pickled_models_of_the_hub(models, tmp_path: Path) -> None:
    folder = tmp_path / "pickled"
    shutil.copytree(models[MISTRAL], folder)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with running_hub_of({"team/old": folder, "team/new": models[BIO]}) as hub:
        config = recipe(tmp_path, mean("team/old", "team/new"))
        environment = at(hub.endpoint, tmp_path)
        said = ronghe("plan", config, environment=environment)
        assert said.returncode == 2
        assert "are pickled, whose headers cannot be read from afar; `ronghe merge` downl" in (
            said.stderr
        )
        assert not hub.downloads()
        done = ronghe("merge", config, tmp_path / "out", environment=environment)
        assert done.returncode == 0, done.stderr
    check_average(tmp_path / "out", models[MISTRAL], models[BIO])


def test_modelscope(models, tmp_path: Path) -> None:
    config = recipe(tmp_path, mean("modelscope://team/base", "modelscope://team/tuned@v1"))
    with running_modelscope({"team/base": models[MISTRAL], "team/tuned": models[BIO]}) as scope:
        environment = {"MODELSCOPE_ENDPOINT": scope.endpoint, "HOME": str(tmp_path / "home")}
        planned = ronghe("plan", config, "--json", environment=environment)
        assert planned.returncode == 0, planned.stderr
        expected = [f"modelscope://team/{name}@{HEAD}" for name in ("base", "tuned")]
        assert origins(json.loads(planned.stdout)) == expected
        assert not (tmp_path / "home" / ".cache" / "ronghe" / "sources").exists()
        done = ronghe("merge", config, tmp_path / "out", environment=environment)
        assert done.returncode == 0, done.stderr
        assert f"downloading {expected[0]}: " in done.stderr
        seen = len(scope.requests)
        again = ronghe("merge", config, tmp_path / "two", environment=environment)
        assert again.returncode == 0, again.stderr
        assert len(scope.requests) == seen
    check_average(tmp_path / "out", models[MISTRAL], models[BIO])
    nowhere = environment | {"MODELSCOPE_ENDPOINT": "127.0.0.1:9", "HOME": str(tmp_path / "new")}
    said = ronghe("plan", config, environment=nowhere).stderr
    assert "ModelScope (https://127.0.0.1:9) cannot be reached" in said
    assert "modelscope download --model team/base --local_dir FOLDER" in said


def test_a_model_in_a_bucket(s3_root: str, models, tmp_path: Path) -> None:
    from tests.resources.upstream_models import upload

    upload(models[BIO], f"{s3_root}/bio")
    config = recipe(tmp_path, mean(str(models[MISTRAL]), f"{s3_root}/bio"))
    planned = ronghe("plan", config, "--json")
    assert planned.returncode == 0, planned.stderr
    assert origins(json.loads(planned.stdout)) == [None, f"{s3_root}/bio"]
    done = ronghe("merge", config, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert f"downloading {s3_root}/bio: " in done.stderr
    check_average(tmp_path / "out", models[MISTRAL], models[BIO])
    again = ronghe("merge", config, tmp_path / "two")
    assert again.returncode == 0, again.stderr
    assert "downloading" not in again.stderr


def test_without_the_client_of_the_hub(models, tmp_path: Path, monkeypatch) -> None:
    import importlib.util

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = snapshot(tmp_path / "hf" / "hub", BIO, models[BIO])
    assert resolve(BIO).path == folder
    with pytest.raises(MissingModelError, match=r"no folder .*pip install 'ronghe\[hub\]'"):
        resolve(MISTRAL)


def test_a_disk_without_room_is_said_before(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    from orchestration.commands.models import far_files

    class Full:
        free = 1000

    monkeypatch.setattr(far_files.shutil, "disk_usage", lambda _: Full)

    class Far:
        kept_in, variable = tmp_path / "not" / "yet", "HF_HOME"

        def resolved(self) -> str:
            return "hf://a/b@0"

    with pytest.raises(MissingModelError, match=r"takes 26\.0 GB, .* has 0\.0 MB free.*HF_HOME"):
        far_files._check_room(Far(), 26_000_000_000)  # type: ignore[arg-type]


def test_nothing_is_left_in_the_working_folder(hub: Hub, tmp_path: Path) -> None:
    config = recipe(tmp_path, mean(MISTRAL))
    empty = tmp_path / "empty"
    empty.mkdir()
    ronghe("plan", config, environment=at(hub.endpoint, tmp_path), folder=empty)
    assert os.listdir(empty) == []
