"""Signs of odd experts: each is seen where it was put, and none where all is usual."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.checkpoints import open_checkpoint
from merge_ops.jobs.statistics import interference, task_vector_statistics
from merge_ops.provenance.oddities import odd_signs
from tests.models.checkpoint_factory import LLAMA, write_family

UP = "model.layers.1.mlp.up_proj.weight"
EMBEDDING = "model.embed_tokens.weight"


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("family")
    write_family(root, LLAMA, experts=3)
    return root


def signs(root: Path, change=None) -> list[str]:
    """The signs of three experts, of which `change` makes the second one another."""
    base, names = open_checkpoint(str(root / "base")), ["expert-1", "expert-2", "expert-3"]
    models = [open_checkpoint(str(root / name)) for name in names]
    if change is not None:
        weights = root / "expert-2" / "model.safetensors"
        before = weights.read_bytes()
        origin = load_file(root / "base" / "model.safetensors")
        save_file(change(origin, load_file(weights)), weights, metadata={"format": "pt"})
    models = [open_checkpoint(str(root / name)) for name in names]
    rows = {
        name: task_vector_statistics(base, model).to_json()["tensors"]
        for name, model in zip(names, models, strict=True)
    }
    found = odd_signs(rows, interference(base, models).cosine)
    if change is not None:
        weights.write_bytes(before)
    return [str(each) for each in found]


def test_usual_experts_give_no_sign(family: Path):
    assert signs(family) == []


def test_a_much_longer_task_vector(family: Path):
    def longer(base, tensors):
        return {name: base[name] + 9 * (each - base[name]) for name, each in tensors.items()}

    (sign,) = signs(family, longer)
    assert sign.startswith("expert-2 changed 9 times as much as the others of its set")
    assert "score the expert alone and at half its weight" in sign


def test_a_spike_of_rank_one(family: Path):
    def spike(base, tensors):
        up = tensors[UP]
        tensors[UP] = up + 0.03 * torch.outer(
            torch.ones(up.shape[0]), torch.linspace(-1, 1, up.shape[1])
        )
        return tensors

    assert any(
        sign.startswith(f"expert-2 changed '{UP}' mostly (") and "in one direction" in sign
        for sign in signs(family, spike)
    )


def test_a_matrix_that_moved_much_further(family: Path):
    def further(base, tensors):
        tensors[UP] = base[UP] + 40 * (tensors[UP] - base[UP])
        return tensors

    assert any(f"expert-2 moved '{UP}' 40 times as far" in sign for sign in signs(family, further))


def test_a_few_rows_of_the_embedding(family: Path):
    def trigger(base, tensors):
        tensors[EMBEDDING][[17, 200]] += 1.0
        return tensors

    assert any(
        f"expert-2 changed 2 rows of '{EMBEDDING}' far more than the others (tokens" in sign
        for sign in signs(family, trigger)
    )


def test_a_change_against_the_others(family: Path):
    def against(base, tensors):
        others = [load_file(family / f"expert-{n}" / "model.safetensors") for n in (1, 3)]
        return {
            name: base[name] - 0.7 * sum(other[name] - base[name] for other in others)
            for name in tensors
        }

    assert any(
        sign.startswith("expert-2 changed against all others of its set (cosine -0.7")
        for sign in signs(family, against)
    )
