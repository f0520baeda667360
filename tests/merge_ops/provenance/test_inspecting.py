"""Is a candidate in a suspect? Real merges of tiny models, strangers, protections, quantising.

The experts here have a direction in common, as fine-tunes of one base do. How often verdicts are
right on models that were trained is measured by benchmarks/ownership.py (docs/ownership.md).
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.checkpoints import Checkpoint, open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.jobs.assembly import merge
from merge_ops.plans import plan_merge
from merge_ops.provenance.inspecting import Inspection, inspect_suspect
from merge_ops.provenance.task_regression import shares_of
from merge_ops.recipes import check_recipe
from merge_ops.stream import StreamSettings
from merge_ops.symmetries import transformed
from merge_ops.symmetries.keys import SECRET_BYTES, new_key, symmetry_of
from tests.models.checkpoint_factory import LLAMA, base_tensors, draw, write_checkpoint

ONE_THREAD = StreamSettings(threads=1, device="cpu")
NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base and four experts; a third of what each changed is the same in all."""
    root, base = tmp_path_factory.mktemp("family"), base_tensors(LLAMA)
    write_checkpoint(root / "base", base, LLAMA)
    for number, name in enumerate(NAMES):
        tensors = {
            key: each
            + draw(key, tuple(each.shape), 10 + number, 1.5e-3)
            + draw(key, tuple(each.shape), 99, 1e-3)
            for key, each in base.items()
        }
        write_checkpoint(root / name, tensors, LLAMA)
    return root


def opened(root: Path, name: str) -> Checkpoint:
    return open_checkpoint(str(root / name))


def merged(root: Path, out: Path, method: str, weights: dict[str, float], **settings) -> Checkpoint:
    document = {
        "merge_method": method,
        "base_model": str(root / "base"),
        "models": [
            {"model": str(root / name), "parameters": {"weight": weight, **settings}}
            for name, weight in weights.items()
        ],
    }
    recipe = check_recipe(document, "case", "case.yaml")
    models = {name: open_checkpoint(name) for name in recipe.referenced_models}
    merge(plan_merge(recipe, models), out, ONE_THREAD)
    return open_checkpoint(str(out))


def inspected(root: Path, suspect: Checkpoint, names: Sequence[str] = NAMES) -> Inspection:
    candidates = [opened(root, name) for name in names]
    return inspect_suspect(suspect, candidates, opened(root, "base"), ONE_THREAD)


def answers(found: Inspection) -> list[str]:
    return [each.answer for each in found.candidates]


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("task_arithmetic", {}),
        ("ties", {"density": 0.3}),
        ("dare_ties", {"density": 0.5}),
        ("breadcrumbs", {"density": 0.5}),
    ],
)
def test_members_of_a_weight_of_a_tenth_are_found_and_strangers_are_not(
    family: Path, tmp_path: Path, method: str, settings: dict[str, float]
):
    suspect = merged(family, tmp_path / "out", method, {"a": 0.1, "b": 0.5}, **settings)
    found = inspected(family, suspect)
    assert answers(found) == ["in it", "in it", "not found", "not found"]
    assert found.aligned == ()
    assert found.origin is not None
    assert found.origin.p_value < 1e-6
    json.dumps(found.to_json(), allow_nan=False)


def test_a_linear_merge_gives_its_weights_back(family: Path, tmp_path: Path):
    suspect = merged(family, tmp_path / "out", "task_arithmetic", {"a": 0.3, "c": 0.5})
    found = inspected(family, suspect)
    assert [each.weight for each in found.candidates] == pytest.approx([0.3, 0, 0.5, 0], abs=1e-4)
    assert found.explained == pytest.approx(1.0, abs=1e-6)
    evidence = found.candidates[0]
    assert evidence.low <= 0.3 + 1e-4
    assert evidence.high >= 0.3 - 1e-4


def test_a_protected_suspect_is_aligned_first(family: Path, tmp_path: Path):
    suspect = merged(family, tmp_path / "out", "task_arithmetic", {"a": 0.2, "b": 0.4})
    key = replace(new_key(), secret="17" * SECRET_BYTES)  # a drawn one may leave heads in order
    hidden = transformed(suspect, symmetry_of(key, suspect))
    found = inspected(family, hidden)
    assert answers(found) == ["in it", "in it", "not found", "not found"]
    assert set(found.aligned) == {"mlp", "vo", "qk", "heads", "norms", "residual"}
    assert found.distance is not None
    assert found.distance[0] > 1 > 0.2 > found.distance[1]
    assert any("permuted or protected" in note for note in found.notes)
    assert found.base_huref is not None
    assert found.base_huref > 0.9


def test_int8_and_back_hides_nothing(family: Path, tmp_path: Path):
    suspect = merged(family, tmp_path / "out", "ties", {"a": 0.2, "b": 0.5}, density=0.5)
    weights = tmp_path / "out" / "model.safetensors"
    tensors = load_file(weights)
    for name, each in tensors.items():
        if each.dim() == 2:
            scale = each.abs().amax(1, keepdim=True) / 127
            tensors[name] = (each / scale).round() * scale
    save_file(tensors, weights, metadata={"format": "pt"})
    suspect = open_checkpoint(str(tmp_path / "out"))
    assert answers(inspected(family, suspect)) == ["in it", "in it", "not found", "not found"]


def test_a_model_of_another_origin_is_told(family: Path, tmp_path: Path):
    write_checkpoint(tmp_path / "other", base_tensors(LLAMA, seed=5), LLAMA)
    found = inspected(family, opened(tmp_path, "other"), ["a", "b"])
    assert "in it" not in answers(found)
    assert found.origin is not None
    assert found.origin.p_value > 1e-3
    assert any("another origin" in note for note in found.notes)
    assert any("trained independently" in note for note in found.notes)


def test_what_cannot_be_told_apart_is_said(family: Path, tmp_path: Path):
    suspect = merged(family, tmp_path / "out", "task_arithmetic", {"a": 0.3, "b": 0.5})
    found = inspected(family, suspect, ["a", "a", "base"])
    assert answers(found) == ["cannot be told"] * 3
    with pytest.raises(CompatibilityError, match="candidates are missing; name some"):
        inspected(family, suspect, [])


def test_shares_of_a_gram_matrix_by_hand():
    """δ_s = 0.5 δ_1 + rest: lengths 2 and 1, a rest of length 1 across both."""
    x = torch.eye(3, dtype=torch.float64)
    first, second = 2 * x[0], x[1]
    suspect = 0.5 * first + x[2]
    table = torch.stack([first, second, suspect])
    found = shares_of((table @ table.T).numpy(), count=11)
    assert found.weights == (0.5, 0.0)
    assert found.errors == pytest.approx((1 / 6, 1 / 3))
    assert found.explained == 0.5
