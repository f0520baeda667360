"""What `ronghe merge` and `plan` take for a model, and what they say where there is none."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from merge_ops.errors import MissingModelError
from orchestration.commands.model_references import local_path, resolve
from tests.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.checkpoint_factory import (
    Shape,
    base_tensors,
    expert_tensors,
    write_checkpoint,
)
from tests.merging import ronghe
from tests.resources.hub_server import COMMIT, Hub, running_hub_of
from tests.resources.modelscope_server import HEAD, running_modelscope

DEEP = Shape("llama", layers=40, hidden=16, intermediate=24, heads=2, kv_heads=2)
SHALLOW = Shape("llama", layers=3, hidden=16, intermediate=24, heads=2, kv_heads=2)

# Recipes in the shape of mergekit's own examples, with the models that those name.
ORCA, PLATYPUS = "psmathur/orca_mini_v3_13b", "garage-bAInd/Platypus2-13B"
WIZARD, MATH, LLAMA_2 = (
    "WizardLM/WizardLM-13B-V1.2", "WizardLM/WizardMath-13B-V1.0", "TheBloke/Llama-2-13B-fp16",
)  # fmt: skip
MISTRAL, INSTRUCT, BIO = (
    "mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.2", "BioMistral/BioMistral-7B",
)  # fmt: skip
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


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models of the names that mergekit's examples hold."""
    root = tmp_path_factory.mktemp("upstream")
    made: dict[str, Path] = {}
    for shape, names in (
        (DEEP, (LLAMA_2, ORCA, PLATYPUS, WIZARD, MATH)),
        (SHALLOW, (MISTRAL, INSTRUCT, BIO, "model_a", "model_b")),
    ):
        base = base_tensors(shape)
        for seed, name in enumerate(names):
            tensors = expert_tensors(base, seed) if seed else base
            made[name] = write_checkpoint(root / name, tensors, shape, shards=1 + seed % 3)
    return made


@pytest.fixture
def hub(models: Mapping[str, Path]) -> Iterator[Hub]:
    """A hub that has them."""
    with running_hub_of(models) as running:
        yield running


def at(hub: str, tmp_path: Path, **more: str) -> dict[str, str]:
    """The environment of a user with a network that leads to `hub`, and an empty cache."""
    return {
        "HF_HUB_OFFLINE": "0", "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"),
        "HOME": str(tmp_path / "home"), **more,
    }  # fmt: skip


def recipe(folder: Path, document: object, name: str = "recipe") -> Path:
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return config


def mean(*names: str, **more: object) -> dict[str, object]:
    """A plain average of models."""
    models = [{"model": name, "parameters": {"weight": 1.0}} for name in names]
    return {"merge_method": "linear", "dtype": "float32", "models": models, **more}


def averaged(*folders: Path) -> dict[str, torch.Tensor]:
    """The average of models in float64, by safetensors and torch alone."""
    loaded = [
        {
            name: tensor
            for file in folder.glob("*.safetensors")
            for name, tensor in load_file(file).items()
        }
        for folder in folders
    ]
    return {
        name: torch.stack([each[name].double() for each in loaded]).mean(0) for name in loaded[0]
    }


def check_average(out: Path, *folders: Path) -> None:
    written, expected = averaged(out), averaged(*folders)
    assert set(written) == set(expected)
    for name, tensor in expected.items():
        torch.testing.assert_close(written[name], tensor, rtol=3e-7, atol=1e-7)


def origins(plan: dict) -> list[str]:
    return [each["resolved"] for each in plan["inputs"]]


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


def snapshot(cache: Path, name: str, folder: Path, branch: str = "main") -> Path:
    """Put a model into a cache of the Hub, as a download does; returns its folder."""
    root = cache / f"models--{name.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / branch).write_text(COMMIT)
    shutil.copytree(folder, root / "snapshots" / COMMIT, dirs_exist_ok=True)
    return root / "snapshots" / COMMIT


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
    from tests.resources.upstream.test_model_sources import upload

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


def test_without_the_client_of_the_hub(models, tmp_path: Path, monkeypatch) -> None:
    import importlib.util

    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    folder = snapshot(tmp_path / "hf" / "hub", BIO, models[BIO])
    assert resolve(BIO).path == folder
    with pytest.raises(MissingModelError, match=r"no folder .*pip install 'ronghe\[hub\]'"):
        resolve(MISTRAL)


def test_a_disk_without_room_is_said_before(hub: Hub, tmp_path: Path, monkeypatch) -> None:
    from orchestration.commands import far_files

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
