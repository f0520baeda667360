"""Files of other programs: each is told to be what it is, with what to do here."""

import re

import pytest

from merge_ops.errors import RecipeError
from merge_ops.recipes.steps import load_steps

FILES = {
    "moe": ("gate_mode: hidden\nbase_model: a", "is a mergekit-moe file without `experts`, a list"),
    "stages": ("stages: [{name: one, config_file: one.yml}]", "is a mergekit-multi file of stag"),
    "evolve": ("genome: {models: [a], merge_method: ties}\ntasks: []", "is a mergekit-evolve file"),
    "bakllama": ("layer_slices: []\nembedding_source: a", "is a bakllama file; write its layers"),
    "config": ('{"architectures": ["X"], "model_type": "x"}', "is the config.json of a model"),
    "adapter": ('{"peft_type": "LORA", "r": 8}', "is the adapter_config.json of an adapter"),
    "factory": (
        "model_name_or_path: a\nadapter_name_or_path: b",
        "is a LLaMA-Factory file. To",
    ),
    "card": ("base_model: [a]\nlibrary_name: transformers", "is the head of a model card (README"),
    "catalog": ("models: {a: {source: x}}", "is a catalog's models.yaml, which `ronghe refresh`"),
    "suite": ("name: x\nbenchmarks: []", "is a suite of a catalog"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_it_is(tmp_path, name):
    text, expected = FILES[name]
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=re.escape(f"file.yaml: {expected}")):
        load_steps(path)


def test_a_recipe_of_a_catalog_is_none_of_them(tmp_path):
    path = tmp_path / "study.yaml"
    path.write_text("merge_method: linear\nexperts: all\nparameters: {weight: 1}")
    assert load_steps(path).result.experts == ("all",)


STAGES = """
name: First
merge_method: linear
models: [{model: a, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
---
merge_method: linear
models: [{model: PLACE, parameters: {weight: 1}}, {model: b, parameters: {weight: 1}}]
"""


@pytest.mark.parametrize(
    "place", ["./intermediates/First", "intermediates/First/", "/tmp/x/First", ".\\\\work\\\\First"]
)
def test_the_folder_of_a_stage_is_told_to_be_its_name(tmp_path, place):
    path = tmp_path / "file.yaml"
    path.write_text(STAGES.replace("PLACE", f'"{place}"'))
    with pytest.raises(RecipeError, match=r"keeps the result of document First; write `First`"):
        load_steps(path)


def test_a_document_may_be_called_like_a_model_of_the_hub(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(STAGES.replace("PLACE", "First").replace("model: b", "model: org/First"))
    assert load_steps(path).referenced_models == ("a", "org/First")
