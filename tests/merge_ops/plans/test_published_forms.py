"""The forms of mergekit files that people publish parse and plan, with stand-ins for the models.

The files are written anew after the examples of mergekit's documentation and of model cards: the
same keys in the same shapes. mergekit's `out_path` and `pattern` of 2023 are gone there, too.
"""

from dataclasses import replace

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.plans.step_plans import plan_steps
from merge_ops.recipes.steps import load_steps
from tests.models import checkpoint_factory as factory

FORMS = {
    "soup": """
models:
  - model: one
    parameters:
      weight: 1.0
  - model: two
    parameters:
      weight: 0.3
  - model: three
    parameters:
      weight: 0.5
merge_method: linear
dtype: float16
""",
    "ties-with-left-over-switches": """
models:
  - model: one
    parameters:
      density: 0.5
      weight: 0.5
  - model: two
    parameters:
      density: 0.5
      weight: 0.5
merge_method: ties
base_model: base
parameters:
  normalize: false
  int8_mask: true
dtype: float16
""",
    "ties-gradients-and-filters": """
models:
  - model: one
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: two
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: three
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: base
parameters:
  normalize: true
  int8_mask: true
dtype: float16
""",
    "an-empty-parameter-table": """
models:
  - model: one
    parameters:
      density: [0.8, 0.3, 0.1]
      weight: [1.0, 0.8, 0.5]
merge_method: ties
base_model: base
parameters:
dtype: bfloat16
""",
    "gradient-slerp": """
slices:
  - sources:
      - model: one
        layer_range: [0, 8]
      - model: two
        layer_range: [0, 8]
merge_method: slerp
base_model: one
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: bfloat16
""",
    "a-taller-stack": """
slices:
  - sources:
    - model: one
      layer_range: [0, 5]
  - sources:
    - model: two
      layer_range: [3, 8]
merge_method: passthrough
dtype: float16
""",
    "silenced-projections": """
slices:
  - sources:
      - model: one
        layer_range: [0, 6]
  - sources:
      - model: one
        layer_range: [4, 8]
        parameters:
          scale:
            - filter: o_proj
              value: 0.0
            - filter: down_proj
              value: 0.0
            - value: 1.0
merge_method: passthrough
dtype: bfloat16
""",
    "dare-with-a-base-listed-without-parameters": """
models:
  - model: base
    # no parameters necessary for base model
  - model: one
    parameters: {density: 0.53, weight: 0.4}
  - model: two
    parameters: {density: 0.53, weight: 0.3}
merge_method: dare_ties
base_model: base
parameters:
  int8_mask: true
dtype: bfloat16
""",
    "a-slice-then-a-merge": """
name: gradient-slerp
slices:
  - sources:
      - {model: one, layer_range: [0, 8]}
      - {model: two, layer_range: [0, 8]}
merge_method: slerp
base_model: one
parameters: {t: [0, 1]}
dtype: float16
---
models:
  - model: gradient-slerp
    parameters: {density: [1, 0.7, 0.1], weight: 1.0}
  - model: three
    parameters: {density: 0.33, weight: [{filter: mlp, value: 0.5}, {value: 0}]}
merge_method: ties
base_model: base
parameters: {normalize: true, int8_mask: true}
dtype: float16
""",
}


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    shape = replace(factory.LLAMA, layers=8)
    family = factory.write_family(tmp_path_factory.mktemp("stand-ins"), shape, experts=3)
    folders = zip(("base", "one", "two", "three"), (family.base, *family.experts), strict=True)
    return {name: open_checkpoint(name, FolderSource(folder), name) for name, folder in folders}


@pytest.mark.parametrize("form", FORMS)
def test_a_published_form_plans(form, opened, tmp_path):
    path = tmp_path / f"{form}.yaml"
    path.write_text(FORMS[form])
    steps = load_steps(path)
    plan = plan_steps(steps, {name: opened[name] for name in steps.referenced_models}).result
    assert plan.outputs[0].digest
    dtype = {"float16": "F16", "bfloat16": "BF16"}[plan.recipe.dtype]
    assert {tensor.output.dtype for tensor in plan.steps} == {dtype}
    assert all(tensor.action == "merge" for tensor in plan.steps)
