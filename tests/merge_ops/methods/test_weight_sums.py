"""Weights that cancel are refused before anything is read, and those that do not are merged."""

import numpy as np
import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import RecipeError
from merge_ops.jobs.assembly import merge
from merge_ops.methods import METHODS
from merge_ops.methods.weight_sums import nearly_zero
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.models import checkpoint_factory as factory

NEARLY = [0.1, 0.2, -0.3]  # 5.6e-17
ON_TASK_VECTORS = (
    "task_arithmetic",
    "breadcrumbs",
    "dare_linear",
    "della_linear",
    "consensus_ta",
    "ties",
    "breadcrumbs_ties",
    "dare_ties",
    "della",
    "consensus_ties",
)


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("family"), factory.LLAMA, experts=3)


def plan_of(family, method, weights, normalize="normalize: true", names="abc", base=True):
    folders = {"base": family.base, **dict(zip("abc", family.experts, strict=True))}
    models = [
        f"  - {{model: {name}, parameters: {{weight: {weight}}}}}"
        for name, weight in zip(names, weights, strict=False)
    ]
    text = f"merge_method: {method}\nparameters: {{{normalize}}}\nmodels:\n" + "\n".join(models)
    text += "\nbase_model: base\n" if base else "\n"
    opened = {
        name: open_checkpoint(name, FolderSource(folder), f"digest of {name}")
        for name, folder in folders.items()
    }
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened)


@pytest.mark.parametrize("method", ON_TASK_VECTORS)
def test_means_of_task_vectors(family, method):
    with pytest.raises(RecipeError, match=r"weight nearly sums to zero .*0.1, 0.2, -0.3.*: 5.55e-"):
        plan_of(family, method, NEARLY)
    assert plan_of(family, method, NEARLY, "normalize: false").steps
    assert plan_of(family, method, [0.5, 0.2, -0.699], "normalize: true").steps


@pytest.mark.parametrize("weights", [NEARLY, [0.5, -0.5, 0.0], [1e8, -1e8, 1.0], [0.0, 0.0, 0.0]])
def test_a_mean_of_checkpoints(family, weights):
    with pytest.raises(RecipeError, match=r"sums to zero over the models .*`normalize: false`"):
        plan_of(family, "linear", weights, base=False)
    assert plan_of(family, "linear", weights, "normalize: false", base=False).steps


def test_every_method_that_normalizes_has_the_check():
    dividing = {
        name
        for name, method in METHODS.items()
        if {"normalize", "normalize_weights"} & method.parameter_specs.keys()
    }
    assert dividing == {*ON_TASK_VECTORS, "linear", "multislerp"}
    assert all(METHODS[name].check for name in (*dividing, "nuslerp"))


def test_spheres(family):
    with pytest.raises(RecipeError, match=r"nearly sums to zero .*`normalize_weights` divides by"):
        plan_of(family, "multislerp", NEARLY, "normalize_weights: true", base=False)
    with pytest.raises(RecipeError, match=r"nearly sums to zero .*`nuslerp` divides by that;"):
        plan_of(family, "nuslerp", [1, -0.99999999], "nuslerp_flatten: true", base=False)
    assert plan_of(family, "nuslerp", [1, -0.999], "nuslerp_flatten: true", base=False).steps


def test_only_some_that_agree_nearly_cancel(family):
    """Their float32 sum is 2⁻²⁴ of them: not zero, and nothing to divide by."""
    with pytest.raises(RecipeError, match=r"\[1.0, -0.99999994\]: 6e-08\) where these agree"):
        plan_of(family, "ties", [1.0, 0.25, -0.99999994])
    assert plan_of(family, "ties", [1.0, 0.25, -0.99999994], "normalize: false").steps
    assert plan_of(family, "ties", [1.0, 0.25, -1.0]).steps  # zero divides by one, as in mergekit


def test_a_tiny_sum_is_not_taken_for_none(family):
    """mergekit divides a sum below 1e-8 by one: weights without a meaning."""
    with pytest.raises(RecipeError, match="too little for `normalize` to divide by; write larger"):
        plan_of(family, "task_arithmetic", [1e-9, 2e-9, 1e-9])
    assert plan_of(family, "task_arithmetic", [0.5, -0.5, 0.0]).steps


@pytest.mark.parametrize("method", ["linear", "task_arithmetic"])
def test_a_gradient_through_zero_in_one_layer(family, method):
    weights = [1, "[-2, 0]", 0]  # −1, 0 and 1 in the sum over three layers
    with pytest.raises(RecipeError, match=r"sums to zero.*'model\.layers\.1\.|nearly"):
        plan_of(family, "linear", weights, base=False)
    near = [1, "[-2, 1e-9]", 0] if method == "linear" else [1, "[-2, -1e-9]", 0]
    with pytest.raises(RecipeError, match=r"nearly sums.*at tensor 'model\.layers\.1\."):
        plan_of(family, method, near, base=method != "linear")


def test_the_bound_is_relative():
    assert nearly_zero([1e-30, -1e-30 * (1 - 2**-30)])
    assert not nearly_zero([1e-30, 1e-30])
    assert not nearly_zero([0.5, -0.499])
    assert nearly_zero([1e300, -1e300])
    assert nearly_zero([0.0, 0.0])
    assert not nearly_zero([1e308, 1e308])


def test_weights_that_overflow_are_left_to_the_result(family):
    for method in ("linear", "ties"):
        assert plan_of(family, method, [1e308, 1e308, -1e307], base=method == "ties").steps


def test_small_sums_that_are_allowed_are_right(family, tmp_path):
    merge(plan_of(family, "linear", [0.5, -0.499], base=False, names="ab"), tmp_path / "out")
    made, one, other = (
        factory.read_tensors(folder) for folder in (tmp_path / "out", *family.experts[:2])
    )
    for name, tensor in made.items():
        expected = (0.5 * one[name].double() - 0.499 * other[name].double()) / (0.5 - 0.499)
        error = (tensor.double() - expected).abs().max()
        most = max(float(one[name].abs().max()), 1e-3)
        assert float(error) < 1000 * 2.0**-23 * most
        assert np.isfinite(float(tensor.sum(dtype=torch.float64)))
