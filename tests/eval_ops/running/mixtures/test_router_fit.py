"""Routers fitted to others: laws of the fit, and a walk in which each layer is fitted in turn."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from eval_ops.errors import PromptsError
from eval_ops.running.mixtures import router_walk
from eval_ops.running.mixtures.router_fit import (
    SHRINKAGE,
    Seen,
    divergence,
    fitted_router,
    solved,
    together,
)
from eval_ops.running.mixtures.router_walk import CalibratingDecoder, RouterSource
from tests.models.moe_saliency import TEXTS, write_mixture

EXPERTS, HIDDEN = 6, 16


def _sources(count: int = 300) -> list[Seen]:
    """Two domains whose inputs lie along other directions, each with a router of its own."""
    torch.manual_seed(0)
    scales = torch.linspace(0.2, 2.0, HIDDEN)
    return [
        Seen([torch.randn(count, HIDDEN) * scale], 0.7 * torch.randn(EXPERTS, HIDDEN))
        for scale in (scales, scales.flip(0))
    ]


def test_the_fit_solves_its_normal_equations() -> None:
    """Against the matrix of all equations, built outright."""
    sources = _sources(40)
    start = (sources[0].rows + sources[1].rows) / 2
    size = EXPERTS * HIDDEN
    whole, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size).double()
    for source in sources:
        (inputs,) = source.inputs
        odds = (inputs @ source.rows.T).softmax(-1).double()
        own = torch.zeros_like(whole)
        for p, x in zip(odds, inputs.double(), strict=True):
            own += torch.kron(torch.diag(p) - torch.outer(p, p), torch.outer(x, x)) / len(inputs)
        shrunk = SHRINKAGE * own + (1 - SHRINKAGE) * torch.diag(own.diagonal())
        whole += shrunk
        right += shrunk @ source.rows.double().flatten()
    wanted = torch.linalg.solve(whole, right).view(EXPERTS, HIDDEN)
    torch.testing.assert_close(fitted_router(start, sources), wanted, atol=1e-5, rtol=1e-5)


def test_equal_routers_are_a_fixed_point_to_the_bit() -> None:
    rows = torch.randn(EXPERTS, HIDDEN)
    same = [Seen(each.inputs, rows) for each in _sources()]
    assert torch.equal(fitted_router(rows, same), rows.double())
    start = rows + 0.1 * torch.randn(EXPERTS, HIDDEN)
    torch.testing.assert_close(fitted_router(start, same), rows.double(), atol=1e-5, rtol=1e-5)


def test_routing_comes_nearer_to_the_sources_on_inputs_that_were_not_fitted_on() -> None:
    sources, others = _sources(), _sources()
    start = (sources[0].rows + sources[1].rows) / 2
    fitted = fitted_router(start, sources)
    fresh = [Seen([each.inputs[0].roll(1, 0) * 0.9], each.rows) for each in others]
    assert divergence(fitted, sources) < 0.7 * divergence(start, sources)
    assert divergence(fitted, fresh) < 0.7 * divergence(start, fresh)


def test_a_group_is_wished_for_as_often_as_its_members() -> None:
    logits, groups = torch.randn(5, EXPERTS), [[0, 4], [1], [2, 3], [5]]
    odds = together(logits, groups).softmax(-1)
    members = torch.stack([logits.softmax(-1)[:, each].sum(-1) for each in groups], dim=-1)
    torch.testing.assert_close(odds, members)
    merged = [Seen(each.inputs, _sources()[0].rows, groups) for each in _sources()]
    start = merged[0].rows[[0, 1, 2, 5]]
    assert divergence(fitted_router(start, merged), merged) < 0.5 * divergence(start, merged)


def test_what_no_input_touches_is_left_as_it_was() -> None:
    sources = [Seen([each.inputs[0].clone()], each.rows) for each in _sources()]
    for each in sources:
        each.inputs[0][:, 3] = 0.0
    start = (sources[0].rows + sources[1].rows) / 2
    fitted = fitted_router(start, sources)
    assert torch.equal(fitted[:, 3], start[:, 3].double())
    assert torch.equal(
        solved(lambda each: each, torch.zeros(2, 2), torch.ones(2, 2)), torch.zeros(2, 2)
    )


def _rows(folder: Path) -> dict[int, np.ndarray]:
    tensors = load_file(folder / "model.safetensors")
    return {
        int(name.split(".")[2]): each.float().numpy()
        for name, each in tensors.items()
        if name.endswith(".gate.weight")
    }


@pytest.mark.parametrize(
    ("kind", "more"),
    [("mixtral", {}), ("qwen2_moe", {}), ("qwen3_moe", {"mlp_only_layers": [0]})],
)
def test_layers_are_fitted_in_turn_and_as_the_file_holds_them(
    tmp_path: Path, kind: str, more: dict[str, Any]
) -> None:
    folder = write_mixture(tmp_path / "m", kind, **more)
    before = _rows(folder)
    source = RouterSource(TEXTS, before)
    found = CalibratingDecoder(folder, [source, source]).calibrate()
    assert found.rows.keys() == before.keys()
    assert all(np.array_equal(found.rows[layer], rows) for layer, rows in before.items())
    assert (found.before, found.after) == (0.0, 0.0)
    torch.manual_seed(5)
    tensors = load_file(folder / "model.safetensors")
    spoiled = {
        name: (each + 0.5 * torch.randn_like(each) if name.endswith(".gate.weight") else each)
        for name, each in tensors.items()
    }
    halves = {name: each.bfloat16() for name, each in spoiled.items()}
    save_file(halves, folder / "model.safetensors", metadata={"format": "pt"})
    found = CalibratingDecoder(folder, [source]).calibrate()
    assert found.after < 0.05 * found.before
    for rows in found.rows.values():
        assert np.array_equal(torch.from_numpy(rows).bfloat16().float().numpy(), rows)


def test_texts_that_cannot_be_held_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_mixture(tmp_path / "m", "mixtral")
    monkeypatch.setattr(router_walk, "MOST_HELD", 3)
    with pytest.raises(PromptsError, match=r"have \d+ tokens; at most 3 are held: take fewer"):
        CalibratingDecoder(folder, [RouterSource(TEXTS, _rows(folder))]).calibrate()
    with pytest.raises(PromptsError, match="text 1 is empty"):
        CalibratingDecoder(folder, [RouterSource([" "], _rows(folder))]).calibrate()
