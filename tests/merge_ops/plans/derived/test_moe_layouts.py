"""Two fine-tunes of one MoE in different layouts merge as in one, and routers go where told."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.errors import CompatibilityError, RecipeError
from merge_ops.methods import METHODS
from merge_ops.methods.parameters import REQUIRED
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.steps import Copy
from merge_ops.recipes.reading import parse_recipe
from orchestration.commands.models.local_models import open_models
from tests.merges.merging import merge_in_process
from tests.merges.method_settings import usual_value
from tests.models.moe_models import KINDS, logits, other_layout, write_family


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("moe")
    for kind in KINDS:
        write_family(root / kind, kind)
        for name in ("base", "expert-1", "expert-2"):
            other_layout(root / kind / name, root / kind / f"{name}-fused")
    return root


def recipe(
    folder: Path, names: list[str], method: str = "ties", base: str = "base", more: str = ""
):
    listed = ", ".join(f"{{model: {folder / name}}}" for name in names)
    parameters = "{weight: 0.5, density: 0.5}" if method == "ties" else "{weight: 0.5}"
    based = f"base_model: {folder / base}\n" if base else ""
    return f"merge_method: {method}\n{based}models: [{listed}]\nparameters: {parameters}\n{more}"


def plan(text: str):
    made = parse_recipe(text, "r", "r.yaml")
    return plan_merge(made, open_models("r", made.referenced_models))


def run(tmp_path: Path, name: str, text: str) -> Path:
    (tmp_path / f"{name}.yaml").write_text(text)
    return merge_in_process(tmp_path / f"{name}.yaml", tmp_path / name)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_layouts_merge_to_the_bytes_of_one(models: Path, tmp_path: Path, kind: str):
    folder = models / kind
    one = run(tmp_path, "one", recipe(folder, ["expert-1", "expert-2"]))
    mixed = run(tmp_path, "mixed", recipe(folder, ["expert-1-fused", "expert-2"]))
    other = run(tmp_path, "other", recipe(folder, ["expert-1", "expert-2"], base="base-fused"))
    for result in (mixed, other):
        assert (result / "model.safetensors").read_bytes() == (
            one / "model.safetensors"
        ).read_bytes()
        assert json.loads((result / "config.json").read_text()) == json.loads(
            (one / "config.json").read_text()
        )
    assert torch.allclose(logits(mixed), logits(one), atol=2e-6)


def test_what_is_done_is_said_for_each_model_that_is_changed(models: Path):
    made = plan(recipe(models / "qwen3_moe", ["expert-1-fused", "expert-2"]))
    told = [str(each) for each in made.cautions if "MoE experts" in str(each)]
    assert len(told) == 1
    assert "expert-1-fused" in told[0]
    assert "keeps its MoE experts fused, others do not: they are merged one by one" in told[0]


def test_models_of_one_layout_are_merged_in_it(models: Path):
    fused = plan(recipe(models / "mixtral", ["expert-1-fused"], base="base-fused"))
    assert not [each for each in fused.cautions if "MoE experts" in str(each)]
    names = {step.output.name for step in fused.steps}
    assert "model.layers.0.mlp.experts.gate_up_proj" in names
    assert fused.base.name.endswith("base-fused")
    split = plan(recipe(models / "mixtral", ["expert-1"]))
    assert all(name in split.base.tensors for name in {s.output.name for s in split.steps})


SEVERAL = sorted(
    name for name, row in METHODS.items() if name != "passthrough" and row.exactly != 1
)


@pytest.mark.parametrize("method", SEVERAL)
def test_every_method_merges_mixed_layouts_as_one(models: Path, tmp_path: Path, method: str):
    row, folder = METHODS[method], models / "qwen3_moe"
    required = [each.name for each in row.parameter_specs.values() if each.default is REQUIRED]
    values = {name: usual_value(row, name) for name in required}
    values |= {key: list(value) for key, value in values.items() if isinstance(value, tuple)}
    paired = row.exactly == 2 and row.base == "required" and row.inputs != "task_vectors"
    results = []
    for name, first in (("mixed", "expert-1-fused"), ("one", "expert-1")):
        names = [first] if paired else [first, "expert-2"]
        text = recipe(folder, names, method, "base" if row.base == "required" else "")
        text = re.sub("parameters: .*", f"parameters: {json.dumps(values)}", text)
        results.append(run(tmp_path, name, text) / "model.safetensors")
    assert results[0].read_bytes() == results[1].read_bytes()


def test_another_order_of_axes_is_refused_and_never_guessed(models: Path, tmp_path: Path):
    turned = tmp_path / "turned"
    shutil.copytree(models / "qwen3_moe" / "expert-1-fused", turned)
    tensors = load_file(turned / "model.safetensors")
    for name in [each for each in tensors if ".experts." in each]:
        tensors[name] = tensors[name].transpose(1, 2).contiguous()
    save_file(tensors, turned / "model.safetensors")
    folder = models / "qwen3_moe"
    text = f"merge_method: linear\nmodels: [{{model: {turned}}}, {{model: {folder / 'base'}}}]\n"
    with pytest.raises(CompatibilityError, match="another order of the axes is never guessed"):
        plan(f"{text}parameters: {{weight: 1}}\n")


def test_a_family_that_is_not_known_is_refused_as_before(models: Path, tmp_path: Path):
    for name in ("base", "expert-1-fused"):
        shutil.copytree(models / "qwen3_moe" / name, tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(
            json.dumps({**config, "model_type": "new_moe"})
        )
    with pytest.raises(CompatibilityError, match="is another layout of the same model than"):
        plan(recipe(tmp_path, ["expert-1-fused"]))


GATE = "model.layers.1.mlp.gate.weight"


@pytest.mark.parametrize(("policy", "source"), [("base", "base"), ("expert", "expert-2")])
def test_routers_come_from_one_model(models: Path, tmp_path: Path, policy: str, source: str):
    folder = models / "qwen2_moe"
    said = "base" if policy == "base" else f"expert:{folder / source}"
    text = recipe(folder, ["expert-1-fused", "expert-2"], more=f"router: {said}\n")
    made = plan(text)
    taken = [step.output.name for step in made.steps if isinstance(step, Copy)]
    assert taken == [f"model.layers.{n}.mlp.gate.weight" for n in range(2)]
    result = load_file(run(tmp_path, "out", text) / "model.safetensors")
    plain = load_file(
        run(tmp_path, "plain", recipe(folder, ["expert-1", "expert-2"])) / "model.safetensors"
    )
    expected = load_file(folder / source / "model.safetensors")
    for name, value in result.items():
        chosen = expected if name in taken else plain
        assert torch.equal(value, chosen[name]), name
    if policy == "base":
        text = text.replace("router", "out_dtype: bfloat16\nrouter")
        result = load_file(run(tmp_path, "half", text) / "model.safetensors")
        assert torch.equal(result[GATE], expected[GATE].bfloat16())


def test_merge_is_what_happens_unasked(models: Path):
    text = recipe(models / "qwen2_moe", ["expert-1"])
    asked = plan(f"{text}router: merge\n")
    unasked = plan(text)
    assert [type(s) for s in asked.steps] == [type(s) for s in unasked.steps]
    assert "ties trims routers" in " ".join(map(str, unasked.cautions))
    assert "Set `router: base` or `router: expert:NAME`" in " ".join(map(str, unasked.cautions))
    assert "routers" not in " ".join(map(str, asked.cautions))
    linear = plan(recipe(models / "qwen2_moe", ["expert-1"], "linear"))
    assert "routers" not in " ".join(map(str, linear.cautions))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "calibrate",
            r"texts is missing; `router: calibrate` is fitted on some: write `texts: \{MODEL",
        ),
        ("bse", "router is 'bse'; allowed: merge, base, expert:NAME .* Did you mean 'base'"),
        ("[base]", r"router is \['base'\]; allowed"),
        ("expert:nobody", "names 'nobody', which is not merged here; merged are: "),
    ],
)
def test_what_is_wrong_with_a_router_is_said(models: Path, said: str, told: str):
    with pytest.raises(RecipeError, match=told):
        plan(recipe(models / "qwen2_moe", ["expert-1"], more=f"router: {said}\n"))


def test_a_router_of_a_base_needs_one(models: Path):
    text = recipe(models / "qwen2_moe", ["expert-1", "expert-2"], "linear", "", "router: base\n")
    with pytest.raises(RecipeError, match="is 'base', and the recipe has no `base_model`"):
        plan(text)


def test_a_dense_model_has_no_router(tmp_path: Path):
    from tests.models.checkpoint_factory import LLAMA
    from tests.models.checkpoint_factory import write_family as write_dense

    write_dense(tmp_path, LLAMA, experts=1)
    with pytest.raises(RecipeError, match="routers is not known for its model_type 'llama'; known"):
        plan(recipe(tmp_path, ["expert-1"], more="router: base\n"))
