"""Adapters of image models, in kohya's form and in diffusers', equal what diffusers fuses."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.merges.merging import merge_in_process
from tests.models import image_models
from tests.models.image_models import Tensors, original_name
from tests.oracle.peers.oracle_environment import DiffusersCase, done_by_diffusers

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
# A part of every kind of module that trainers change.
CHANGED = (
    "attn1.to_q", "attn2.to_k", "attn2.to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in",
    "conv1", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv", "upsamplers.0.conv",
)  # fmt: skip
TEXT = ("self_attn.q_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Pipeline:
    """A tiny pipeline: the folder of its parts, its single file, and the tensors of each part."""

    folder: Path
    single: Path
    parts: dict[str, Tensors]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    root = tmp_path_factory.mktemp("sdxl")
    folder = root / "parts"
    done_by_diffusers(root, DiffusersCase("make", "make", folder))
    parts = {name: load_file(folder / name / file) for name, file in FILES.items()}
    single = image_models.write(
        root / "sdxl.safetensors",
        image_models.single_file(parts["unet"], parts["text_encoder"], parts["text_encoder_2"]),
    )
    return Pipeline(folder, single, parts)


def modules_of(part: Tensors, endings: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """The modules of a part that end so, with the shapes of their weights."""
    return {
        name.removesuffix(".weight"): tuple(value.shape)
        for name, value in part.items()
        if name.endswith(tuple(f"{ending}.weight" for ending in endings))
    }


def kohya(pipeline: Pipeline, original: bool) -> Tensors:
    """An adapter of all three parts as kohya's scripts save it, with the original names or not."""
    modules: dict[str, tuple[int, ...]] = {}
    for name, shape in modules_of(pipeline.parts["unet"], CHANGED).items():
        path = original_name(f"{name}.").removesuffix(".") if original else name
        modules[f"lora_unet_{path.replace('.', '_')}"] = shape
    for number, part in ((1, "text_encoder"), (2, "text_encoder_2")):
        for name, shape in modules_of(pipeline.parts[part], TEXT).items():
            path = f"text_model.{name.removeprefix('text_model.')}"
            modules[f"lora_te{number}_{path.replace('.', '_')}"] = shape
    return image_models.adapter_of(modules, 5, ("lora_down", "lora_up"), alpha=2.0)


def diffusers(pipeline: Pipeline) -> Tensors:
    """An adapter as diffusers' own training scripts save it: names with dots, no alphas."""
    modules = {
        f"{part}.{name}": shape
        for part, endings in (("unet", CHANGED), ("text_encoder", TEXT), ("text_encoder_2", TEXT))
        for name, shape in modules_of(pipeline.parts[part], endings).items()
    }
    return image_models.adapter_of(modules, 6, ("lora_A", "lora_B"))


ADAPTERS = {
    "kohya-original": lambda pipeline: kohya(pipeline, original=True),
    "kohya-diffusers": lambda pipeline: kohya(pipeline, original=False),
    "diffusers": diffusers,
}


@pytest.fixture(scope="module")
def fused(
    pipeline: Pipeline, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[Path, dict[str, Tensors]]]:
    """Each adapter's file, and the parts of the pipeline with it as diffusers fuses it."""
    root = tmp_path_factory.mktemp("fused")
    files = {
        name: image_models.write(root / f"{name}.safetensors", make(pipeline))
        for name, make in ADAPTERS.items()
    }
    done_by_diffusers(
        root,
        *(
            DiffusersCase(name, "fuse", root / name, pipeline.folder, file)
            for name, file in files.items()
        ),
    )
    return {
        name: (
            file,
            {part: load_file(root / name / part / "model.safetensors") for part in FILES},
        )
        for name, file in files.items()
    }


def merged(tmp_path: Path, document: dict[str, object]) -> Tensors:
    """What a recipe makes: the tensors of its one file."""
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(document))
    out = merge_in_process(config, tmp_path / "out")
    (file,) = out.glob("*.safetensors")
    return load_file(file)


def alone(model: object) -> dict[str, object]:
    """A recipe that gives one model back."""
    models = [{"model": str(model), "parameters": {"weight": 1}}]
    return {"merge_method": "linear", "models": models}


def assert_equal(ours: Tensors, theirs: Tensors) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        assert torch.allclose(ours[name], value, rtol=1e-5, atol=1e-6), name


@pytest.mark.parametrize("part", FILES)
@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_on_a_part_of_a_pipeline(
    kind: str,
    part: str,
    pipeline: Pipeline,
    fused: dict[str, tuple[Path, dict[str, Tensors]]],
    tmp_path: Path,
) -> None:
    file, expected = fused[kind]
    ours = merged(tmp_path, alone(f"{pipeline.folder / part}+{file}"))
    assert_equal(ours, expected[part])
    changed = [name for name, value in pipeline.parts[part].items() if not ours[name].equal(value)]
    assert len(changed) == len(
        modules_of(pipeline.parts[part], CHANGED if part == "unet" else TEXT)
    )


@pytest.fixture(scope="module")
def renamed(
    pipeline: Pipeline,
    fused: dict[str, tuple[Path, dict[str, Tensors]]],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, tuple[Tensors, Path]]:
    """For each adapter on the single file: our tensors, and diffusers' folder of them."""
    root = tmp_path_factory.mktemp("renamed")
    made: dict[str, tuple[Tensors, Path]] = {}
    cases: list[DiffusersCase] = []
    for kind, (file, _) in fused.items():
        (root / f"{kind}-merge").mkdir()
        ours = merged(root / f"{kind}-merge", alone(f"{pipeline.single}+{file}"))
        whole = image_models.write(root / f"{kind}.safetensors", ours)
        made[kind] = ours, root / kind
        cases.append(DiffusersCase(kind, "rename", root / kind, pipeline.folder, whole))
    done_by_diffusers(root, *cases)
    return made


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_on_a_single_file(
    kind: str,
    fused: dict[str, tuple[Path, dict[str, Tensors]]],
    renamed: dict[str, tuple[Tensors, Path]],
) -> None:
    (_, expected), (ours, folder) = fused[kind], renamed[kind]
    assert_equal(load_file(folder / "unet.safetensors"), expected["unet"])
    second = load_file(folder / "te2.safetensors")
    assert_equal(
        second,
        {name: value for name, value in expected["text_encoder_2"].items() if name in second},
    )
    assert len(second) == len(expected["text_encoder_2"])
    first = {
        name.removeprefix(image_models.FIRST): value
        for name, value in ours.items()
        if name.startswith(image_models.FIRST)
    }
    assert_equal(first, expected["text_encoder"])


def test_two_styles_are_merged_with_weights_for_blocks(
    pipeline: Pipeline, fused: dict[str, tuple[Path, dict[str, Tensors]]], tmp_path: Path
) -> None:
    base = pipeline.parts["unet"]
    (one, first), (two, second) = fused["kohya-original"], fused["diffusers"]
    folder = pipeline.folder / "unet"

    def weights(down: float, rest: float) -> dict[str, object]:
        return {"weight": [{"filter": "down_blocks", "value": down}, {"value": rest}]}

    models = [
        {"model": f"{folder}+{one}", "parameters": weights(0.75, 0.2)},
        {"model": f"{folder}+{two}", "parameters": weights(0.25, 0.8)},
    ]
    (tmp_path / "linear").mkdir()
    ours = merged(tmp_path / "linear", {"merge_method": "linear", "models": models})
    (tmp_path / "arithmetic").mkdir()
    document = {"merge_method": "task_arithmetic", "base_model": str(folder), "models": models}
    added = merged(tmp_path / "arithmetic", {**document, "parameters": {"lambda": 1.5}})
    for name, value in base.items():
        shares = (0.75, 0.25) if name.startswith("down_blocks") else (0.2, 0.8)
        pair = first["unet"][name].double(), second["unet"][name].double()
        mean = shares[0] * pair[0] + shares[1] * pair[1]
        assert torch.allclose(ours[name].double(), mean, rtol=1e-5, atol=1e-6), name
        moved = value.double() + 1.5 * (mean - value.double())
        assert torch.allclose(added[name].double(), moved, rtol=1e-5, atol=1e-6), name
