"""Adapters that cannot be averaged, each with its reason, and `ronghe merge-adapters`."""

import json
import math
import re

import pytest
import torch
import yaml

from merge_ops.errors import CompatibilityError, NonFiniteError, RecipeError
from tests.merges.adapter_averages import BASE, QUERY, SHAPE, average, dense
from tests.merges.merging import ronghe
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import PREFIX, lora_tensors, write_adapter


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return factory.write_checkpoint(tmp_path_factory.mktemp("models") / "base", BASE, SHAPE)


def query(folder, name, size=(64, 64), rank=2, extra=(), **config):
    tensors = lora_tensors({f"{QUERY}.weight": torch.empty(size)}, [QUERY], rank)
    tensors |= {f"{PREFIX}{key}": torch.ones(shape) for key, shape in dict(extra).items()}
    return write_adapter(folder / name, tensors, **{"r": rank, **config})


NORM = "model.norm.weight"
DIFFER = {
    "shapes": (
        {"size": (64, 32)},
        r"'.*q_proj' has 'lora_A.weight' and changes \[64, 32\] in .*b, but 'lora_A.weight' and"
        r" changes \[64, 64\] in .*a; their bases differ",
    ),
    "bases": (
        {"base_model_name_or_path": "other"},
        "base_model_name_or_path is 'base' in .*a, 'other' in .*b; adapters of one base are"
        " averaged; .* say which to write as `base_model`",
    ),
    "tasks": ({"task_type": "SEQ_CLS"}, "task_type is 'CAUSAL_LM' in .*a, 'SEQ_CLS' in .*b"),
    "layers": ({"fan_in_fan_out": True}, "fan_in_fan_out is False in .*a, True in .*b"),
    "whole": (
        {"extra": {NORM: (64,)}, "modules_to_save": ["norm"]},
        r"'model.norm.weight' is saved whole in .*b, but not in .*a; without the base only",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFER)
def test_adapters_that_differ(tmp_path, case):
    config, message = DIFFER[case]
    folders = [query(tmp_path, "a"), query(tmp_path, "b", **config)]
    with pytest.raises(CompatibilityError, match=message):
        average(folders, tmp_path / "out", [1, 1])
    assert not (tmp_path / "out").exists()


def test_all_differences_come_at_once(tmp_path):
    folders = [query(tmp_path, "a"), query(tmp_path, "b", size=(32, 64), fan_in_fan_out=True,
               extra={NORM: (64,)}, base_model_name_or_path="other")]  # fmt: skip
    with pytest.raises(CompatibilityError, match="weight sums to zero") as raised:
        average(folders, tmp_path / "out", [1, -1])
    assert len(raised.value.faults) == 5


def test_a_named_base_settles_what_it_is_called(tmp_path):
    folders = [query(tmp_path, "a"), query(tmp_path, "b", base_model_name_or_path="/models/base/")]
    _, config = average(folders, tmp_path / "out", [1, 1], base_model="hub/base")
    assert config["base_model_name_or_path"] == "hub/base"
    silent = [query(tmp_path, "c", base_model_name_or_path=None), folders[1]]
    _, config = average(silent, tmp_path / "more", [1, 1])
    assert config["base_model_name_or_path"] == "/models/base/"


def test_whole_tensors_that_do_not_go_together(tmp_path):
    saved = {"extra": {NORM: (64,)}, "modules_to_save": ["norm"]}
    folders = [
        query(tmp_path, "a", **saved),
        query(tmp_path, "b", **{**saved, "extra": {NORM: (9,)}}),
    ]
    with pytest.raises(
        CompatibilityError, match=r"norm.weight' is \[9\] in .*b, but \[64\] in .*a"
    ):
        average(folders, tmp_path / "out", [1, 1])
    embedding = "model.embed_tokens"
    extra = {f"{embedding}.weight": (9, 4)}
    factors = {f"{embedding}.lora_embedding_A": (2, 9), f"{embedding}.lora_embedding_B": (4, 2)}
    beside = query(tmp_path, "e", extra={f"{embedding}.base_layer.weight": (9, 4), **factors})
    with pytest.raises(CompatibilityError, match=r"own: PEFT's `save_embedding_layers=False`\)"):
        average([folders[0], beside], tmp_path / "out", [1, 1])
    folders = [
        query(tmp_path, "c", extra=extra, modules_to_save=["embed_tokens"]),
        query(tmp_path, "d", extra={f"{embedding}.base_layer.weight": (9, 4), **factors}),
    ]
    with pytest.raises(
        CompatibilityError, match="is changed by factors in one adapter and is one of"
    ):
        average(folders, tmp_path / "out", [1, 1])


RECIPES = {
    "method": ({"merge_method": "ties", "base_model": "x"}, "merge_method is 'ties'; adapters are"),
    "sweep": ({"sweep": {"normalize": [True, False]}}, "sweep cannot be had of adapters alone"),
    "tokenizer": ({"tokenizer_source": "base"}, "tokenizer cannot be had"),
    "gradient": (
        {"models": [{"model": "a", "parameters": {"weight": [0, 1]}}]},
        r"models\[0\].parameters.weight is a gradient over layers, .* use filters",
    ),
    "no weight": ({"models": [{"model": "a"}]}, "parameters.weight has no value of model '.*a'"),
}  # fmt: skip


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_ask_for_more(tmp_path, case):
    more, message = RECIPES[case]
    with pytest.raises(RecipeError, match=message):
        average([query(tmp_path, "a")], tmp_path / "out", [1], **more)


def test_not_a_number_is_refused(tmp_path):
    tensors = lora_tensors(BASE, [QUERY], 2)
    tensors[f"{PREFIX}{QUERY}.lora_A.weight"][1, 3] = math.nan
    adapter = write_adapter(tmp_path / "a", tensors, r=2)
    with pytest.raises(NonFiniteError, match=r"adapter '.*a': tensor '.*lora_A.weight' holds NaN"):
        average([adapter], tmp_path / "out", [1])


def command(tmp_path, *models, **more):
    models = [{"model": str(each), "parameters": {"weight": 1}} for each in models]
    config = tmp_path / "average.yaml"
    config.write_text(json.dumps({"merge_method": "linear", "models": models, **more}))
    return config, tmp_path / "out"


def test_the_command_line(base, tmp_path):
    folders = [query(tmp_path, "a"), query(tmp_path, "b", rank=3)]
    config, out = command(tmp_path, *folders)
    told = ronghe("merge-adapters", config, out)
    assert told.returncode == 0, told.stderr
    assert "an adapter of 2 in" in told.stderr
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip
    card = (out / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["library_name"]) == ("base", "peft")
    assert "averaged exactly" in card
    assert all(re.search(rf"^\| {each} \| `[0-9a-f]{{64}}` \|$", card, re.M) for each in folders)
    assert yaml.safe_load(card.split("```yaml")[1].rstrip("`\n")) == yaml.safe_load(
        config.read_text()
    )
    one, other, merged = (dense(base, each)[f"{QUERY}.weight"] for each in (*folders, out))
    torch.testing.assert_close(merged, (one + other) / 2, rtol=3e-6, atol=1e-7)
    again = ronghe("merge-adapters", config, out)
    assert (again.returncode, "exists and is not empty" in again.stderr) == (2, True)
    told = ronghe("merge-adapters", config, tmp_path / "wise", "--factor-wise")
    assert told.returncode == 0, told.stderr
    assert json.loads((tmp_path / "wise" / "adapter_config.json").read_text())["r"] == 3


def test_the_command_line_reports_all_that_is_wrong_and_writes_nothing(base, tmp_path):
    config, out = command(
        tmp_path,
        query(tmp_path, "dora", use_dora=True),
        query(tmp_path, "odd", extra={f"{QUERY}.lora_C.weight": (3,)}),
        base,
        f"{base}+{query(tmp_path, 'a')}",
    )
    told = ronghe("merge-adapters", config, out)
    assert told.returncode == 2
    for message in (
        "dora': adapter_config.json: use_dora is set",
        "lora_C.weight' is no lora_A, lora_B",
        f"{base} has no adapter_config.json; an adapter is a folder",
        "names a base as well",
    ):
        assert message in told.stderr
    (tmp_path / "link").symlink_to("a")
    config, out = command(tmp_path, tmp_path / "a", tmp_path / "link", f"{tmp_path}/./a")
    told = ronghe("merge-adapters", config, out)
    assert told.stderr.count("is the same adapter as ") == 2
    assert "and would count twice; list it once" in told.stderr
    config, out = command(tmp_path, tmp_path / "gone", tmp_path / "lost")
    told = ronghe("merge-adapters", config, out)
    assert f"there is no folder {tmp_path}/gone" in told.stderr
    assert f"there is no folder {tmp_path}/lost" in told.stderr
    config, out = command(tmp_path, tmp_path / "gone", dtpye="float32", merge_method="ties")
    told = ronghe("merge-adapters", config, out)
    assert "dtpye is no key of a recipe. Did you mean 'dtype'?" in told.stderr
    tensors = lora_tensors(BASE, [QUERY], 2)
    tensors[f"{PREFIX}{QUERY}.lora_B.weight"][0, 0] = math.inf
    config, out = command(tmp_path, write_adapter(tmp_path / "inf", tensors, r=2))
    told = ronghe("merge-adapters", config, out)
    assert "holds NaN or infinity" in told.stderr
    assert not [path for path in tmp_path.iterdir() if "out" in path.name]
