"""What an output must hold, judged: by what transformers said, and by our own rules without."""

import dataclasses
import json
import shutil

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.agreement import expected_tensors, layer_rules
from merge_ops.plans.agreement.expected_tensors import ExpectedTensors, can_look, judged
from merge_ops.plans.agreement.layer_rules import rule_faults
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

SOUND = {"missing": [], "unexpected": [], "mismatched": []}


def looked(**found):
    return {"state": "looked", "loaded_as": "LlamaForCausalLM", **SOUND, **found}


LAYER = "model.layers.{}.mlp.up_proj.weight"


def test_what_only_the_output_lacks_is_a_fault():
    output = looked(missing=[LAYER.format(1)], unexpected=["model.extra"])
    finding = judged(output, looked(), "base")
    first, second = map(str, finding.faults)
    assert "lacks 'model.layers.1.mlp.up_proj.weight', which LlamaForCausalLM of its" in first
    assert "random values there; `--no-verify` merges without this check" in first
    assert "has 'model.extra', which LlamaForCausalLM of its config.json does not know" in second
    with pytest.raises(CompatibilityError, match=r"study: 2 faults"):
        finding.raise_faults("study")


def test_what_the_base_lacks_too_is_a_fault_all_the_same():
    output = looked(missing=[LAYER.format(3), "model.norm.weight"])
    finding = judged(output, looked(missing=[LAYER.format(1), "model.norm.weight"]), "base")
    (fault,) = finding.faults
    assert "layers.3.mlp" in str(fault)
    assert "'model.norm.weight'" in str(fault)
    assert not finding.cautions


def test_what_the_base_has_too_much_as_well_is_a_caution():
    """Layers may have other numbers in the output. Encoders are used without their poolers."""
    more, pooler = looked(unexpected=[LAYER.format(1)]), looked(missing=["bert.pooler.dense.bias"])
    (caution,) = judged(looked(unexpected=[LAYER.format(3)]), more, "base").cautions
    assert "layers.3.mlp" in caution.problem
    assert "so it is with base" in caution.problem
    assert caution.advice
    guess = looked(missing=["x.weight"]) | {"guessed": True}
    (fault,) = judged(guess, guess, "base").faults
    assert "names no class (`architectures`), and of those that its model_type may be" in str(fault)
    assert judged(guess, looked(), "base").faults
    (caution,) = judged(pooler, pooler, "base").cautions
    assert "'bert.pooler.dense.bias'" in caution.problem
    assert judged(pooler, looked(), "base").faults


def test_a_model_that_never_loaded_is_told_of():
    failed = {"state": "failed", "why": "ValueError: odd"}
    assert judged(failed, failed, "base").cautions[0].problem.endswith("and neither can base")
    assert "ValueError: odd" in str(judged(failed, looked(), "base").faults[0])
    assert judged(looked(missing=["x"]), failed, "base").faults
    assert not judged(looked(unexpected=["x"]), failed, "base").faults
    assert judged({"state": "unknown", "why": "no 'x'"}, {}, "base").not_looked == "no 'x'"


def test_many_names_are_counted():
    finding = judged(looked(missing=[LAYER.format(n) for n in range(9)]), looked(), "base")
    assert "layers.4.mlp.up_proj.weight' and 4 more tensors, which" in str(finding.faults[0])
    odd = looked(mismatched=[["a", [2], [3]]])
    assert "'a' as [2], expected [3]" in str(judged(odd, looked(), "base").faults[0])


# ------------------------------------------------------------------ plans


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("family"), factory.LLAMA, experts=1)


TEXT = "merge_method: linear\nmodels: [{model: base, parameters: {weight: 1}}, "
TEXT += "{model: a, parameters: {weight: 1}}]"


def plan_of(text, **folders):
    opened = {
        name: open_checkpoint(name, FolderSource(folder), f"digest of {name}")
        for name, folder in folders.items()
    }
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened)


@pytest.fixture(scope="module")
def plan(family):
    return plan_of(TEXT, base=family.base, a=family.experts[0])


def test_a_plan_is_looked_at_beside_other_work(plan, family):
    assert can_look(plan)
    with ExpectedTensors(plan) as checks:
        finding = checks.of_plan()
        assert checks.ready
        assert finding.loaded_as == "LlamaForCausalLM"
        assert not finding.faults
        assert not finding.cautions
        assert checks.of_files(family.base) == finding


def test_a_planned_tensor_that_is_gone_is_a_fault(plan):
    less = dataclasses.replace(plan, steps=plan.steps[:-1])
    gone = plan.steps[-1].output.name
    with ExpectedTensors(less) as checks:
        finding = checks.of_plan()
        with pytest.raises(CompatibilityError, match=f"lacks '{gone}', which LlamaForCausalLM"):
            finding.raise_faults("study")


def test_a_check_that_is_not_awaited_ends_at_once(plan):
    with ExpectedTensors(plan) as checks:
        process = checks._child._child._running._process
    assert process.returncode is not None


def test_no_answer_is_no_verdict(plan, monkeypatch):
    with ExpectedTensors(plan) as checks:
        checks._child.kill()
        assert "child" in checks.of_plan().not_looked
    monkeypatch.setattr(expected_tensors, "PATIENCE", 0.0)
    with ExpectedTensors(plan) as checks:
        assert checks.of_plan().not_looked == "there was no answer in 0 s"


def test_no_credential_and_no_network_reach_the_child(plan, monkeypatch):
    monkeypatch.setattr(expected_tensors, "MODULE", "tests.child_programs")
    monkeypatch.setenv("HF_TOKEN", "secret")
    with ExpectedTensors(plan) as checks:
        told = checks._child.ask({"do": "environment"})
        assert "HF_HUB_OFFLINE" in told["environment"]
        assert "HF_TOKEN" not in told["environment"]


# ------------------------------------------------------------------ our own rules


def changed(plan, drop=(), shapes=None):
    """The plan with other outputs."""
    steps = []
    for step in plan.steps:
        old = step.output
        if old.name not in drop:
            shape = (shapes or {}).get(old.name, old.shape)
            steps.append(dataclasses.replace(step, output=OutputTensor(old.name, old.dtype, shape)))
    return dataclasses.replace(plan, steps=tuple(steps))


EMBEDDING = "model.embed_tokens.weight"


@pytest.mark.parametrize(
    ("drop", "shapes", "match"),
    [
        (["lm_head.weight"], {}, "has no output head, and must have one"),
        ([], {EMBEDDING: (200, 64)}, f"has '{EMBEDDING}' with 200 rows, and must have 264"),
        ([], {EMBEDDING: (264, 32)}, f"has '{EMBEDDING}' of width 32, and must have 64"),
    ],
)
def test_rules_of_the_config(plan, drop, shapes, match):
    assert rule_faults(plan) == []
    (fault,) = rule_faults(changed(plan, drop, shapes))
    assert match in str(fault)
    assert "by the config.json of base" in str(fault)


def test_a_layer_that_is_gone(plan):
    drop = [each.output.name for each in plan.steps if ".layers.1." in each.output.name]
    (fault,) = rule_faults(changed(plan, drop))
    assert "has 2 layers in 'model.layers'; 1 is missing, and must have 3" in str(fault)


def test_the_layers_that_the_config_counts_are_those_of_the_text():
    """A tower for pictures may be the higher one, before or after."""

    def shapes(text, pictures):
        names = [f"model.layers.{n}.norm.weight" for n in range(text)]
        return dict.fromkeys([*names, *(f"visual.blocks.{n}.norm.weight" for n in range(pictures))])

    for text, pictures in ((36, 32), (28, 32)):
        config, before = {"num_hidden_layers": text}, shapes(text, pictures)
        stack = layer_rules._counted_stack(config, before)
        assert stack == "model.layers"
        less = {"num_hidden_layers": 24}
        assert layer_rules._layer_count(less, shapes(24, pictures), stack) == ""
        told = layer_rules._layer_count(less, shapes(22, pictures), stack)
        assert told == "has 22 layers in 'model.layers'; 22 is missing, and must have 24"
    assert layer_rules._counted_stack({"num_hidden_layers": 12}, shapes(12, 12)) is None


def test_a_rule_that_the_base_breaks_counts_not(family, tmp_path):
    folder = tmp_path / "odd"
    factory.write_checkpoint(folder, factory.base_tensors(factory.LLAMA), factory.LLAMA)
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": 7, "hidden_size": 8, "vocab_size": 700}
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copytree(folder, tmp_path / "other")
    assert plan_of(TEXT, base=folder, a=tmp_path / "other").steps


def test_slices_of_another_width_in_a_part(family, tmp_path):
    """The residual stream is as wide, the inner layer is not: the config has one width."""
    wider = dataclasses.replace(factory.LLAMA, intermediate=128)
    factory.write_checkpoint(tmp_path / "wide", factory.base_tensors(wider), wider)
    text = "merge_method: passthrough\nslices:\n"
    text += "  - sources: [{model: base, layer_range: [0, 2]}]\n"
    text += "  - sources: [{model: wide, layer_range: [1, 3]}]\n"
    with pytest.raises(CompatibilityError, match=r"mlp\.\w+_proj\.weight'? .*(96|128)"):
        plan_of(text, base=family.base, wide=tmp_path / "wide")
