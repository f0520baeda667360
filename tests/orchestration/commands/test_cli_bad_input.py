"""Bad input through the real command line: one clear message, exit status 2, nothing written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.merges.merging import ronghe
from tests.models.checkpoint_factory import (
    LLAMA,
    Spoiler,
    add_tensor,
    add_vocabulary_rows,
    change_shape,
    drop_tensor,
    overlap_tensors,
    overstate_header,
    point_index_outside,
    put_value,
    spoiled,
    swap_tokens,
    truncate_weights,
    write_family,
)

GOOD = """
merge_method: ties
base_model: $models/base
models:
  - model: $models/expert-1
    parameters: {weight: 0.6, density: 0.4}
  - model: $models/expert-2
    parameters: {weight: 0.5, density: 0.3}
"""


@dataclass(frozen=True)
class BadInput:
    """A change to the good file or to its second expert, and what the message must say."""

    message: Sequence[str]
    change: tuple[str, str] = ("", "")
    spoil: Spoiler | None = None
    adds: str = field(default="")


RECIPES = {
    "unknown method": BadInput(
        [r"no merge method is called 'tiess'. Did you mean 'ties'\?", "bad.yaml"],
        ("merge_method: ties", "merge_method: tiess"),
    ),
    "misspelt key": BadInput(
        ["bad.yaml", r"basemodel is no key of a recipe. Did you mean 'base_model'\?"],
        ("base_model:", "basemodel:"),
    ),
    "misspelt parameter": BadInput(
        [r"models\[0\].parameters.wieght is no parameter of ties. Did you mean 'weight'\?"],
        ("weight: 0.6", "wieght: 0.6"),
    ),
    "density 1.5": BadInput(
        [r"bad.yaml: models\[1\].parameters.density is 1.5", "above 0 and at most 1"],
        ("density: 0.3", "density: 1.5"),
    ),
    "sweep over an unknown parameter": BadInput(
        [r"bad.yaml: sweep.densty is no parameter of ties. Did you mean 'density'\?"],
        adds="sweep: {densty: [0.1, 0.5]}\n",
    ),
    "several faults at once": BadInput(
        [r"bad.yaml: 3 faults", "dtpye is no key", "lambda is", "sweep.densty is no"],
        adds="dtpye: float32\nsweep: {densty: [0.1]}\nparameters: {lambda: high}\n",
    ),
    "missing model": BadInput(
        ["there is no folder .*/no-such-model"],
        ("$models/expert-2", "$models/no-such-model"),
    ),
    "no YAML": BadInput(["bad.yaml: is not valid YAML"], ("models:", "models: [")),
}  # fmt: skip

CHECKPOINTS = {
    "shape mismatch": BadInput(
        [
            "bad has another shape: 'model.layers.1.mlp.up_proj.weight'",
            r"is \[95, 64\], but \[96, 64\] in .*base",
        ],
        spoil=change_shape,
    ),
    "vocabulary of another size": BadInput(
        [
            "bad has another vocabulary: 'model.embed_tokens.weight'",
            r"is \[272, 64\], but \[264, 64\] in .*base",
        ],
        spoil=add_vocabulary_rows,
    ),
    "vocabulary of the same size": BadInput(
        ["bad has another vocabulary than .*base: 2 tokens moved or missing"], spoil=swap_tokens
    ),
    "truncated safetensors file": BadInput(
        ["bad/model.safetensors: the file is truncated"], spoil=truncate_weights
    ),
    "header longer than the file": BadInput(
        [r"bad/model.safetensors: its header claims \d+ bytes, but the file has \d+"],
        spoil=overstate_header,
    ),
    "index pointing outside the folder": BadInput(
        ["bad/model.safetensors.index.json: shard '../base/model.safetensors' lies outside"],
        spoil=point_index_outside,
    ),
    "NaN in an expert": BadInput(
        ["bad", "model.layers.1.mlp.down_proj.weight", "NaN|not finite|non-finite"],
        spoil=put_value,
    ),
    "infinity in an expert": BadInput(
        ["bad", "model.layers.1.mlp.down_proj.weight", "infinit|not finite|non-finite"],
        spoil=lambda folder: put_value(folder, float("-inf")),
    ),
    "missing tensor": BadInput(
        ["bad lacks 'model.layers.1.self_attn.o_proj.weight', which .*base has"],
        spoil=drop_tensor,
    ),
    "extra tensor": BadInput(
        ["bad has 'model.layers.1.self_attn.q_norm.weight', which .*base lacks"],
        spoil=add_tensor,
    ),
    "overlapping tensors": BadInput(
        ["bad/model.safetensors: the data of tensor '.*' overlaps the one before it"],
        spoil=overlap_tensors,
    ),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_family(root, LLAMA, experts=2)
    return root


def assert_refused(config: Path, out: Path, message: Sequence[str]) -> None:
    """`ronghe merge` exits with 2 after one message of ours and leaves its folder as it was."""
    before = sorted(out.parent.iterdir())
    done = ronghe("merge", config, out)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert re.match(r"[A-Z]\w+Error: ", done.stderr), done.stderr
    assert len(re.findall(r"^\w+Error: ", done.stderr, re.MULTILINE)) == 1
    for pattern in message:
        assert re.search(pattern, done.stderr), (pattern, done.stderr)
    assert sorted(out.parent.iterdir()) == before


@pytest.mark.parametrize("what", RECIPES)
def test_a_bad_recipe(models: Path, tmp_path: Path, what: str) -> None:
    bad = RECIPES[what]
    text = GOOD.replace(*bad.change) + bad.adds
    assert text != GOOD
    config = tmp_path / "bad.yaml"
    config.write_text(text.replace("$models", str(models)), encoding="utf-8")
    assert_refused(config, tmp_path / "out", bad.message)


@pytest.mark.parametrize("what", CHECKPOINTS)
def test_a_bad_checkpoint(models: Path, tmp_path: Path, what: str) -> None:
    bad = CHECKPOINTS[what]
    assert bad.spoil is not None
    spoiled(models / "expert-2", tmp_path / "bad", bad.spoil)
    config = tmp_path / "recipe.yaml"
    text = GOOD.replace("$models/expert-2", str(tmp_path / "bad"))
    config.write_text(text.replace("$models", str(models)), encoding="utf-8")
    assert_refused(config, tmp_path / "out", bad.message)


def test_no_recipe_at_all(tmp_path: Path) -> None:
    message = [r"nowhere.yaml: the file cannot be read \(No such file or directory\)"]
    assert_refused(tmp_path / "nowhere.yaml", tmp_path / "out", message)


def test_what_is_in_the_way_is_left_alone(models: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "good.yaml", tmp_path / "out"
    config.write_text(GOOD.replace("$models", str(models)), encoding="utf-8")
    out.mkdir()
    (out / "precious.txt").write_text("mine", encoding="utf-8")
    assert_refused(config, out, ["out exists and is not empty"])
    assert [each.name for each in out.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--memory", "lots", "--memory is 'lots'; give a number of bytes such as 512MiB"),
        ("--device", "tpu", "tpu"),
    ],
)
def test_a_bad_option(models: Path, tmp_path: Path, option: str, value: str, message: str) -> None:
    config = tmp_path / "good.yaml"
    config.write_text(GOOD.replace("$models", str(models)), encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    done = ronghe("merge", config, tmp_path / "out", option, value)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert message in done.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_the_good_file_merges(models: Path, tmp_path: Path) -> None:
    """So that what the tests above see is due to what they changed."""
    config, out = tmp_path / "good.yaml", tmp_path / "out"
    config.write_text(GOOD.replace("$models", str(models)), encoding="utf-8")
    before = sorted(tmp_path.iterdir())
    done = ronghe("merge", config, out)
    assert done.returncode == 0, done.stderr
    assert (out / "model.safetensors").exists()
    assert sorted(tmp_path.iterdir()) == sorted([*before, out])
