"""Two layouts of one model are told in one sentence, for models and for adapters."""

import re
from collections.abc import Callable

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, write_adapter

RECIPE = "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}"
MODULES = (
    "merge_method: linear\nparameters: {weight: 1}\n"
    "modules: {text_decoder: {models: [{model: a}, {model: b}]}}"
)
LLAMA = factory.LLAMA.tensor_shapes()
Rename = Callable[[str], str]


def refusal(tmp_path, first, second, recipe=RECIPE):
    """The faults of a merge of two models, given as shapes by name."""
    models = {}
    for name, shapes in (("a", first), ("b", second)):
        (tmp_path / name).mkdir()
        tensors = {each: torch.rand(shape) for each, shape in shapes.items()}
        factory.write_weights(tmp_path / name, tensors)
        models[name] = open_checkpoint(name, FolderSource(tmp_path / name))
    with pytest.raises(CompatibilityError) as raised:
        plan_merge(parse_recipe(recipe, "r", "r.yaml"), models)
    return [str(fault) for fault in raised.value.faults]


def vision(prefix: str, depth: int = 2) -> dict[str, tuple[int, ...]]:
    """A vision tower whose layers end as the language model's do."""
    return {f"{prefix}layers.{n}.self_attn.q_proj.weight": (8, 8) for n in range(depth)}


def gemma(five: bool):
    def name(each: str) -> str:
        if each == "lm_head.weight":
            return each if five else f"language_model.{each}"
        start = "model.language_model." if five else "language_model.model."
        return each.replace("model.", start, 1)

    tower = "model.vision_tower." if five else "vision_tower."
    return {name(each): shape for each, shape in LLAMA.items()} | vision(tower)


def qwen(five: bool):
    if not five:
        return LLAMA | vision("visual.")
    return {
        each.replace("model.", "model.language_model.", 1): shape for each, shape in LLAMA.items()
    } | vision("model.visual.")


def mixtral(fused: bool, block: str = "mlp", weights=("gate_proj", "up_proj", "down_proj")):
    dense = {name: shape for name, shape in LLAMA.items() if ".mlp." not in name}
    gate, up, down = weights
    for layer in range(3):
        at = f"model.layers.{layer}.{block}"
        dense[f"{at}.gate.weight"] = (4, 64)
        if fused:
            dense[f"{at}.experts.gate_up_proj"] = (4, 192, 64)
            dense[f"{at}.experts.down_proj"] = (4, 64, 96)
            continue
        for expert in range(4):
            dense[f"{at}.experts.{expert}.{gate}.weight"] = (96, 64)
            dense[f"{at}.experts.{expert}.{up}.weight"] = (96, 64)
            dense[f"{at}.experts.{expert}.{down}.weight"] = (64, 96)
    return dense


def old_bert(old: bool):
    names = ("gamma", "beta") if old else ("weight", "bias")
    return {
        f"bert.encoder.layer.{n}.output.LayerNorm.{name}": (8,) for n in range(3) for name in names
    } | {"bert.embeddings.word_embeddings.weight": (16, 8)}


CASES = {
    "Gemma 3": (
        gemma(False), gemma(True),
        ["'language_model.model' is 'model.language_model'",
         "'language_model.' is gone before 'lm_head'", "'model.' stands before 'vision_tower'"],
    ),
    "Qwen2-VL": (
        qwen(False), qwen(True),
        ["'language_model.' stands before 'layers'", "'model.' stands before 'visual'"],
    ),
    "fused experts": (
        mixtral(False), mixtral(True),
        ["its MoE experts are fused ('model.layers.0.mlp.experts.down_proj'), a's are not"],
    ),
    "Mixtral": (
        mixtral(False, "block_sparse_moe", ("w1", "w3", "w2")), mixtral(True),
        ["its MoE experts are fused", "'block_sparse_moe' is 'mlp'"],
    ),
    "old BERT": (old_bert(False), old_bert(True), ["'weight' is 'gamma'", "'bias' is 'beta'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("turned", [False, True])
def test_one_sentence_says_which_names_changed(tmp_path, case, turned):
    first, second, told = CASES[case]
    (fault,) = refusal(tmp_path, *((second, first) if turned else (first, second)))
    assert fault.startswith("b is another layout of the same model than a: ")
    assert "load one of the two with the version that wrote the other, save it again" in fault
    for part in [] if turned else told:
        assert part in fault
    assert "more tensors" not in fault


def test_modules_of_two_layouts_are_one_sentence(tmp_path):
    faults = refusal(tmp_path, gemma(False), gemma(True), MODULES)
    assert len(faults) == 1
    assert "b is another layout of the same model than a: " in faults[0]


def test_what_the_layout_does_not_explain_is_named_beside_it(tmp_path):
    faults = refusal(tmp_path, qwen(False), qwen(True) | {"audio.conv.weight": (3, 3)})
    assert len(faults) == 2
    assert "another layout" in faults[0]
    assert "has 'audio.conv.weight', which a lacks" in faults[1]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"norm.weight": (4,), "x.o_proj.weight": (4, 4)}, {"norm.weight": (4,), "x.gate": (4, 4)}),
        ({f"a.{n}.x.weight": (4, 4) for n in range(3)}, {f"b.{n}.y.bias": (4,) for n in range(3)}),
        (LLAMA, old_bert(False)),
    ],
)
def test_other_names_are_listed_as_ever(tmp_path, first, second):
    faults = refusal(tmp_path, first, second)
    assert len(faults) == 2
    assert re.search(r"b lacks '.*, which a has", faults[0])
    assert "nothing is dropped silently" in faults[1]


def named_otherwise(tmp_path, front):
    """A base, and an adapter of it whose modules have other names."""
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0)
    tensors = factory.read_tensors(base)
    modules = [f"model.layers.{n}.self_attn.{m}_proj" for n in (0, 2) for m in "qkv"]
    factors = lora_tensors(tensors, modules, 4)
    named = {
        name.replace("model.layers.", f"{front}layers."): factor for name, factor in factors.items()
    }
    write_adapter(tmp_path / "lora", named, r=4)
    return open_checkpoint("base", FolderSource(base)), factors


@pytest.mark.parametrize("front", ["model.language_model.", "language_model.model."])
def test_an_adapter_of_another_version_changes_the_same_modules(tmp_path, front):
    below, factors = named_otherwise(tmp_path, front)
    opened = open_adapter("base+lora", below, FolderSource(tmp_path / "lora"))
    changed = {name.split(".lora_")[0].removeprefix("base_model.model.") for name in factors}
    assert set(opened.overlays) == {f"{module}.weight" for module in changed}


def test_an_adapter_of_another_layout_is_one_fault(tmp_path):
    below, _ = named_otherwise(tmp_path, "thinker.model.")
    with pytest.raises(CompatibilityError) as raised:
        open_adapter("base+lora", below, FolderSource(tmp_path / "lora"))
    (fault,) = raised.value.faults
    assert "the adapter is another layout of the same model than base" in str(fault)
    assert "' stands before '" in str(fault)
    assert "merge it into the base in the layout that it was trained on" in str(fault)


def test_a_slip_of_a_name_is_no_layout(tmp_path):
    base, _ = factory.write_family(tmp_path, factory.LLAMA, experts=0)
    tensors = factory.read_tensors(base)
    modules = [f"model.layers.{n}.mlp.up_proj" for n in (0, 1)]
    named = {
        name.replace("up_proj", "up_prj"): each
        for name, each in lora_tensors(tensors, modules, 4).items()
    }
    write_adapter(tmp_path / "lora", named, r=4)
    below = open_checkpoint("base", FolderSource(base))
    with pytest.raises(CompatibilityError, match=r"Did you mean '.*up_proj.weight'"):
        open_adapter("base+lora", below, FolderSource(tmp_path / "lora"))
