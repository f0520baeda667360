"""What `ronghe merge` and `plan` take for a model, and what they say where there is none."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from merge_ops.checkpoints.pickles.dcp_folders import metadata_of
from merge_ops.errors import CheckpointError, MissingModelError
from orchestration.commands.models.model_references import local_path, resolve
from tests.merges.merging import ronghe
from tests.orchestration.commands.models.named_models import (
    BIO,
    INSTRUCT,
    LLAMA_2,
    MATH,
    MISTRAL,
    ORCA,
    PLATYPUS,
    WIZARD,
    at,
    averaged,
    check_average,
    mean,
    origins,
    recipe,
    snapshot,
)
from tests.resources.hub_server import COMMIT, Hub

# Recipes in the shape of mergekit's own examples, with the models that those name.
EXAMPLES = {
    "arcee_fusion": {
        "merge_method": "arcee_fusion", "base_model": "model_a", "dtype": "bfloat16",
        "models": [{"model": "model_a"}, {"model": "model_b"}],
    },
    "bio-merge": {
        "merge_method": "ties", "base_model": MISTRAL, "dtype": "float16",
        "models": [
            {"model": name, "parameters": {"density": 0.5, "weight": 0.5}}
            for name in (INSTRUCT, BIO)
        ],
        "parameters": {"normalize": False, "int8_mask": True},
    },
    "gradient-slerp": {
        "merge_method": "slerp", "base_model": ORCA, "dtype": "float16",
        "slices": [
            {"sources": [{"model": name, "layer_range": [0, 40]} for name in (ORCA, PLATYPUS)]}
        ],
        "parameters": {
            "t": [
                {"filter": "self_attn", "value": [0, 0.5, 0.3, 0.7, 1]},
                {"filter": "mlp", "value": [1, 0.5, 0.7, 0.3, 0]},
                {"value": 0.5},
            ]
        },
    },
    "linear": {
        "merge_method": "linear", "dtype": "float16",
        "models": [
            {"model": name, "parameters": {"weight": weight}}
            for name, weight in ((ORCA, 1.0), (WIZARD, 0.3), (PLATYPUS, 0.5))
        ],
    },
    "orcamini-platy-44layer": {
        "merge_method": "passthrough", "dtype": "float16",
        "slices": [
            {"sources": [{"model": ORCA, "layer_range": [0, 24]}]},
            {"sources": [{"model": PLATYPUS, "layer_range": [20, 40]}]},
        ],
    },
    "ties": {
        "merge_method": "ties", "base_model": LLAMA_2, "dtype": "float16",
        "models": [
            {"model": ORCA, "parameters": {"density": [1, 0.7, 0.1], "weight": 1.0}},
            {"model": PLATYPUS, "parameters": {"density": 0.5, "weight": [0, 0.3, 0.7, 1]}},
            {
                "model": MATH,
                "parameters": {
                    "density": 0.33, "weight": [{"filter": "mlp", "value": 0.5}, {"value": 0}],
                },
            },
        ],
        "parameters": {"normalize": True, "int8_mask": True},
    },
}  # fmt: skip
LAYERS = {"arcee_fusion": 3, "bio-merge": 3, "orcamini-platy-44layer": 44}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_mergekit_plan_and_merge(name: str, hub: Hub, tmp_path: Path) -> None:
    config = recipe(tmp_path, EXAMPLES[name], name)
    environment = at(hub.endpoint, tmp_path)
    planned = ronghe("plan", config, "--json", environment=environment, folder=tmp_path)
    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert all(origin.endswith(f"@{COMMIT}") for origin in origins(plan))
    assert not any(".safetensors" in file and "index" not in file for file in hub.downloads())
    assert not (tmp_path / "hf").exists()

    merged = ronghe("merge", config, tmp_path / "out", environment=environment, folder=tmp_path)
    assert merged.returncode == 0, merged.stderr
    assert f"@{COMMIT}: " in merged.stderr
    assert "MB in" in merged.stderr
    config_json = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config_json["num_hidden_layers"] == LAYERS.get(name, 40)
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    wanted = {each["model"] for each in EXAMPLES[name].get("models", ())} or {ORCA, PLATYPUS}
    assert set(front["base_model"]) >= wanted
    for each in wanted:
        assert f"hf://{each}@{COMMIT}" in card

    seen = len(hub.requests)
    again = ronghe("merge", config, tmp_path / "two", environment=environment, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    assert len(hub.requests) == seen  # the cache has it all
    assert "downloading" not in again.stderr
    first, second = averaged(tmp_path / "out"), averaged(tmp_path / "two")
    assert all(torch.equal(tensor, second[key]) for key, tensor in first.items())


def test_the_numbers_are_those_of_the_folders(hub: Hub, models, tmp_path: Path) -> None:
    config = recipe(tmp_path, mean(MISTRAL, f"hf://{INSTRUCT}", f"{BIO}@main"))
    done = ronghe("merge", config, tmp_path / "out", environment=at(hub.endpoint, tmp_path))
    assert done.returncode == 0, done.stderr
    check_average(tmp_path / "out", models[MISTRAL], models[INSTRUCT], models[BIO])


@pytest.mark.parametrize("variable", ["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "HOME"])
def test_the_local_cache_is_used_without_a_network(
    models, tmp_path: Path, monkeypatch, variable: str
) -> None:
    for each in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(each, raising=False)
    below = {
        "HF_HOME": "hub", "HF_HUB_CACHE": ".", "XDG_CACHE_HOME": "huggingface/hub",
        "HOME": ".cache/huggingface/hub",
    }[variable]  # fmt: skip
    for name in (MISTRAL, BIO):
        snapshot(tmp_path / "here" / below, name, models[name])
    config = recipe(tmp_path, mean(MISTRAL, f"hf://{BIO}@{COMMIT}"))
    environment = {variable: str(tmp_path / "here"), "HF_ENDPOINT": "http://127.0.0.1:9"}
    done = ronghe("merge", config, tmp_path / "out", environment=environment)
    assert done.returncode == 0, done.stderr
    check_average(tmp_path / "out", models[MISTRAL], models[BIO])


def test_a_snapshot_without_weights_is_no_model(hub: Hub, models, tmp_path: Path) -> None:
    """Whoever loads a tokenizer alone leaves such a one."""
    cache = tmp_path / "hf" / "hub"
    for name, gone in ((MISTRAL, "model*.safetensors"), (BIO, "*-00002-of-*.safetensors")):
        folder = snapshot(cache, name, models[name])
        removed = [path.unlink() for path in folder.glob(gone)]
        assert removed
    config = recipe(tmp_path, mean(MISTRAL, BIO))
    offline = at(hub.endpoint, tmp_path, HF_HUB_OFFLINE="1")
    said = ronghe("merge", config, tmp_path / "out", environment=offline)
    assert said.returncode == 2
    part = "is in the local cache in part"
    assert f"hf://{MISTRAL} {part} ({cache}" in said.stderr
    assert f"{COMMIT} lacks every file of weights), and the Hub" in said.stderr
    assert not hub.requests
    done = ronghe("merge", config, tmp_path / "out", environment=at(hub.endpoint, tmp_path))
    assert done.returncode == 0, done.stderr
    check_average(tmp_path / "out", models[MISTRAL], models[BIO])


def test_a_snapshot_without_a_tokenizer_is_completed_or_told(
    hub: Hub, models, tmp_path: Path
) -> None:
    folder = snapshot(tmp_path / "hf" / "hub", MISTRAL, models[MISTRAL])
    for path in folder.glob("tokenizer*"):
        path.unlink()
    snapshot(tmp_path / "hf" / "hub", BIO, models[BIO])
    config = recipe(tmp_path, mean(MISTRAL, BIO))
    nowhere = at("http://127.0.0.1:9", tmp_path)
    said = ronghe("plan", config, "--json", environment=nowhere)
    assert said.returncode == 0, said.stderr
    (warning,) = [each for each in json.loads(said.stdout)["warnings"] if "cache" in each]
    assert f"model '{MISTRAL}' is used as the local cache has it" in warning
    assert f"hf download {MISTRAL}" in warning
    done = ronghe("plan", config, "--json", environment=at(hub.endpoint, tmp_path))
    assert done.returncode == 0, done.stderr
    assert not [each for each in json.loads(done.stdout)["warnings"] if "cache" in each]
    assert (folder / "tokenizer.json").is_file()


def test_what_cannot_be_reached_is_said_with_both_readings(tmp_path: Path) -> None:
    config = recipe(tmp_path, mean("team/model", "modles/expert-1", str(tmp_path / "gone")))
    offline = ronghe("plan", config, environment={"HF_HOME": str(tmp_path / "hf")}, folder=tmp_path)
    assert offline.returncode == 2
    said = offline.stderr
    assert f"'team/model': there is no folder {tmp_path}/team/model, and model source" in said
    assert f"not in the local cache ({tmp_path}/hf/hub/models--team--model)" in said
    assert "HF_HUB_OFFLINE is set" in said
    assert "hf download team/model" in said
    assert "HF_ENDPOINT=https://hf-mirror.com" in said
    assert f"'modles/expert-1': there is no folder {tmp_path}/modles/expert-1, and" in said
    assert said.endswith(f"'{tmp_path}/gone': there is no folder {tmp_path}/gone\n")
    nowhere = ronghe("plan", config, environment=at("http://127.0.0.1:9", tmp_path))
    assert nowhere.returncode == 2
    assert "cannot be read (ConnectError); check the network to http://127.0.0.1:9" in (
        nowhere.stderr
    )


def test_a_folder_wins_over_a_name_of_the_hub(hub: Hub, models, tmp_path: Path) -> None:
    shutil.copytree(models[INSTRUCT], tmp_path / MISTRAL)
    config = recipe(tmp_path, mean(MISTRAL, f"hf://{MISTRAL}"))
    environment = at(hub.endpoint, tmp_path)
    done = ronghe("merge", config, tmp_path / "out", environment=environment, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    check_average(tmp_path / "out", models[INSTRUCT], models[MISTRAL])
    config = recipe(tmp_path, mean(f"{MISTRAL}@v2"))
    said = ronghe("plan", config, environment=environment, folder=tmp_path).stderr
    assert f"{MISTRAL} is a folder here, and folders have no revisions; write '{MISTRAL}'" in said


def test_home_variables_and_file_uris(models, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("MODELS", str(models[MISTRAL].parent))
    (tmp_path / "home").mkdir(exist_ok=True)
    shutil.copytree(models[BIO], tmp_path / "home" / "bio")
    spelt = ["~/bio", f"${{MODELS}}/{INSTRUCT.split('/')[1]}", models[MISTRAL].as_uri()]
    done = ronghe(
        "merge", recipe(tmp_path, mean(*spelt)), tmp_path / "out",
        environment={"HOME": str(tmp_path / "home")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    check_average(tmp_path / "out", models[BIO], models[INSTRUCT], models[MISTRAL])


def test_a_folder_that_is_called_like_a_variable(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("$HOME", "~", "a+b", "gpt2", "owner/name@v1"):
        (tmp_path / name).mkdir(parents=True)
        assert local_path(name) == Path(name)
        assert resolve(name).path == Path(name)


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("$NO_SUCH/model", "no folder .*NO_SUCH/model. The environment has no variable NO_SUCH"),
        ("https://huggingface.co/Qwen/Qwen2-0.5B", "a page on the web; write Qwen/Qwen2-0.5B"),
        ("https://modelscope.cn/models/Qwen/Qwen2-0.5B",
         "a page on the web; write modelscope://Qwen/Qwen2-0.5B"),
        ("ftp://host/model", "ftp:// is none of a model; write a folder, owner/name, or one of"),
        ("hf://one-word", "write hf://owner/name, or hf://owner/name@revision"),
        ("hf://a/b@../../x", "write hf://owner/name, or hf://owner/name@revision"),
        ("modelscope://one-word", "write modelscope://owner/name"),
        ("./a/b", r"there is no folder .*/a/b$"),
        ("a/b/c", r"there is no folder .*/a/b/c$"),
        ("a/model.safetensors", r"there is no folder .*/a/model\.safetensors$"),
        ("a\nb/c", "there is no folder"),
        pytest.param("x" * 5000, "there is no folder", id="too long"),
        ("gpt2", "there is no folder .*/gpt2, and model source hf://gpt2 is not in the local"),
    ],
)  # fmt: skip
def test_what_is_no_model_is_said(reference: str, said: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    with pytest.raises(MissingModelError, match=said):
        resolve(reference)


def test_a_link_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(tmp_path / "gone")
    with pytest.raises(MissingModelError, match=r"It is a link to .*/gone, which is gone"):
        resolve(str(tmp_path / "model"))


def test_a_folder_of_the_cache_has_its_name_on_the_hub(models, tmp_path: Path) -> None:
    folder = snapshot(tmp_path, BIO, models[BIO])
    assert resolve(str(folder)).origin == f"hf://{BIO}@{COMMIT}"
    assert resolve(str(models[BIO])).origin is None


def test_what_may_not_be_looked_at_is_no_name_of_the_hubs(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    monkeypatch.setattr(Path, "stat", _refused)
    with pytest.raises(MissingModelError, match="team/model may not be looked at: this user may"):
        resolve("team/model")


def test_a_folder_that_may_not_be_looked_into_is_refused(monkeypatch, tmp_path):
    for name in ("is_file", "stat"):
        monkeypatch.setattr(Path, name, _refused)
    with pytest.raises(CheckpointError, match=rf"{tmp_path} cannot be read \(Permission denied\)"):
        metadata_of(tmp_path)


def _refused(path, **_):
    raise PermissionError(errno.EACCES, "Permission denied", str(path))
