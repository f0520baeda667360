"""moe_experts fused and one by one: the table is transformers', and round trips keep every bit."""

import re
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.arrangement.mixtures.layouts import (
    FUSED,
    ONE_BY_ONE,
    as_stored,
    axis_faults,
    laid_out,
    layouts_in,
)
from merge_ops.checkpoints.checkpoint import Checkpoint, Stored, source_of
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.sources.fused_layouts import LAYOUTS, ROUTERS, is_router
from merge_ops.sources.fused_tensors import Cut, Joined
from merge_ops.stream.block_reader import read_values
from tests.models.checkpoint_factory import write_weights

Tensors = Mapping[str, torch.Tensor]
DISTINCT = {"mixtral": "mixtral", "qwen": "qwen3_moe", "vl": "qwen3_vl_moe", "oss": "gpt_oss"}
DISTINCT |= {"llama4": "llama4_text"}


def values(model: Checkpoint, name: str, block: int = 1 << 30) -> torch.Tensor:
    """A tensor of a model, read in blocks."""
    source = source_of(model, name)
    assert source is not None
    entry = model.tensors[name]
    assert (source.shape, source.dtype) == (entry.shape, entry.dtype)
    count = entry.count
    parts = [read_values(source, at, min(block, count - at)) for at in range(0, count, block)]
    return torch.cat(parts).view(source.shape)


def write(folder, tensors: Tensors) -> Checkpoint:
    folder.mkdir(exist_ok=True)
    write_weights(folder, dict(tensors))
    return open_checkpoint("m", FolderSource(folder))


def one_by_one(
    kind: str, experts: int, inner: int, hidden: int, seed: int = 0
) -> dict[str, torch.Tensor]:
    """One MLP of a family, moe_expert by moe_expert, beside its router."""
    layout = LAYOUTS[kind]
    torch.manual_seed(seed)
    found = {f"model.layers.0.{layout.blocks[0]}.gate.weight": torch.randn(experts, hidden)}
    for number in range(experts):
        for part, name in enumerate(layout.parts):
            at = f"model.layers.0.{layout.blocks[0]}.experts.{number}.{name}"
            shape = (hidden, inner) if part == 2 else (inner, hidden)
            found[f"{at}.weight"] = torch.randn(shape)
            if layout.biases:
                found[f"{at}.bias"] = torch.randn(shape[0])
    return found


def fused_by_hand(kind: str, single: Tensors, experts: int) -> dict[str, torch.Tensor]:
    """The fused tensors by torch, from what the families' forward passes do with them."""
    layout = LAYOUTS[kind]
    at, gate_name, up_name, down_name = f"model.layers.0.{layout.blocks[0]}.experts", *layout.parts

    def pair(kind_of: str, number: int) -> torch.Tensor:
        gate, up = (single[f"{at}.{number}.{n}.{kind_of}"] for n in (gate_name, up_name))
        if layout.interleaved:  # rows gate 0, up 0, gate 1, up 1, …
            return torch.stack([gate, up], dim=1).flatten(0, 1)
        return torch.cat([gate, up])

    pairs = torch.stack([pair("weight", n) for n in range(experts)])
    downs = torch.stack([single[f"{at}.{n}.{down_name}.weight"] for n in range(experts)])
    if layout.axes == "in_out":
        pairs, downs = pairs.transpose(1, 2), downs.transpose(1, 2)
    to = f"model.layers.0.{layout.fused_block}.experts"
    found = {f"{to}.gate_up_proj": pairs.contiguous(), f"{to}.down_proj": downs.contiguous()}
    if layout.biases:
        found[f"{to}.gate_up_proj_bias"] = torch.stack([pair("bias", n) for n in range(experts)])
        downs = [single[f"{at}.{n}.{down_name}.bias"] for n in range(experts)]
        found[f"{to}.down_proj_bias"] = torch.stack(downs)
    return found


@pytest.mark.parametrize("kind", DISTINCT.values())
@settings(max_examples=12, deadline=None)
@given(
    experts=st.integers(1, 12),
    inner=st.integers(1, 9),
    hidden=st.integers(1, 9),
    block=st.integers(1, 40),
)
def test_fusing_and_cutting_undo_each_other_to_the_bit(
    tmp_path_factory, kind: str, experts: int, inner: int, hidden: int, block: int
):
    layout, folder = LAYOUTS[kind], tmp_path_factory.mktemp("m")
    single = one_by_one(kind, experts, inner, hidden)
    model = write(folder, single)
    fused = laid_out(model, layout, one_by_one=False)
    expected = fused_by_hand(kind, single, experts)
    router = f"model.layers.0.{layout.fused_block}.gate.weight"
    assert set(fused.tensors) == {*expected, router}
    for name, value in expected.items():
        assert torch.equal(values(fused, name, block), value), name
    again = laid_out(fused, layout, one_by_one=True)
    stored = write(folder / "fused", expected)
    assert not axis_faults(stored, layout)
    cut = laid_out(stored, layout, one_by_one=True)
    assert set(again.tensors) == set(single)
    for name in single:
        assert torch.equal(values(again, name, block), single[name]), name
        if ".experts." in name:
            assert torch.equal(values(cut, name, block), single[name]), name
    assert cut.nbytes == stored.nbytes


def test_what_lies_together_is_read_as_it_lies(tmp_path):
    single = one_by_one("mixtral", 3, 4, 6)
    stored = write(tmp_path / "fused", fused_by_hand("mixtral", single, 3))
    cut = laid_out(stored, LAYOUTS["mixtral"], one_by_one=True)
    assert not cut.overlays
    source = source_of(cut, "model.layers.0.block_sparse_moe.experts.2.w3.weight")
    assert isinstance(source, Stored)
    assert source.entry.nbytes == 4 * 6 * 4


def test_identities_tell_every_part(tmp_path):
    single = one_by_one("gpt_oss", 2, 4, 6)
    model = write(tmp_path / "m", single)
    fused = laid_out(model, LAYOUTS["gpt_oss"], one_by_one=False)
    made = fused.overlays["model.layers.0.mlp.experts.gate_up_proj"]
    assert isinstance(made, Joined)
    assert {part.name for part in made.parts} == {
        f"model.layers.0.mlp.experts.{n}.{p}_proj.weight" for n in range(2) for p in ("gate", "up")
    }
    stored = write(tmp_path / "fused", fused_by_hand("gpt_oss", single, 2))
    cut = laid_out(stored, LAYOUTS["gpt_oss"], one_by_one=True)
    assert all(isinstance(each, Cut) for each in cut.overlays.values())
    told = {str(each.identity(lambda model: "digest")) for each in cut.overlays.values()}
    assert len(told) == len(cut.overlays) > 0


def test_what_is_not_whole_stays_as_it_is(tmp_path):
    single = one_by_one("qwen3_moe", 3, 4, 6)
    del single["model.layers.0.mlp.experts.1.up_proj.weight"]
    model = write(tmp_path / "m", single)
    assert set(laid_out(model, LAYOUTS["qwen3_moe"], one_by_one=False).tensors) == set(single)
    assert layouts_in(model, LAYOUTS["qwen3_moe"]) == {ONE_BY_ONE}
    assert layouts_in(model, LAYOUTS["mixtral"]) == set()
    fused = write(tmp_path / "f", {"a.mlp.experts.gate_up_proj": torch.zeros(2, 8, 6)})
    assert layouts_in(fused, LAYOUTS["qwen3_moe"]) == {FUSED}
    (fault,) = axis_faults(fused, LAYOUTS["qwen3_moe"])
    assert "files of its model_type have (E, 2I, D) and (E, D, I)" in str(fault)


@pytest.mark.parametrize("square", [False, True])
def test_the_shapes_of_both_tensors_prove_the_axes(tmp_path, square: bool):
    hidden = 8 if square else 6  # 2I = D makes the first tensor a square
    single = one_by_one("qwen3_moe", 3, 4, hidden)
    right = write(tmp_path / "right", fused_by_hand("qwen3_moe", single, 3))
    turned = write(tmp_path / "turned", fused_by_hand("qwen3_vl_moe", single, 3))
    assert not axis_faults(right, LAYOUTS["qwen3_moe"])
    assert axis_faults(turned, LAYOUTS["qwen3_moe"])
    either = LAYOUTS["qwen3_vl_moe"]  # whose loader turns them by their shapes
    assert not axis_faults(right, either)
    assert not axis_faults(turned, either)
    assert [as_stored(each, either).axes for each in (right, turned)] == ["out_in", "in_out"]


@pytest.mark.parametrize("kind", [name for name, each in LAYOUTS.items() if each.one_by_one])
def test_the_table_says_what_transformers_does(kind: str):
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    text = {"qwen3_5_moe": "qwen3_5_moe_text"}.get(kind, kind)
    rules = get_checkpoint_conversion_mapping(text)
    layout = LAYOUTS[kind]
    joined = {}
    for rule in rules:
        for target in rule.target_patterns:
            operations = [
                (type(each).__name__, each.dim) for each in getattr(rule, "operations", [])
            ]
            joined[target.split(".")[-1]] = (rule.source_patterns, operations)
    stacked, chained = [("MergeModulelist", 0)], [("MergeModulelist", 0), ("Concatenate", 1)]
    for target, parts, operations in (
        ("gate_up_proj", layout.parts[:2], chained),
        ("down_proj", layout.parts[2:], stacked),
    ):
        names = [re.search(r"experts\.\*\.(\w+)\.weight$", each)[1] for each in joined[target][0]]
        assert (tuple(names), joined[target][1]) == (parts, operations)


@pytest.mark.parametrize("kind", ["qwen3_vl_moe", "gpt_oss", "llama4_text"])
def test_the_others_are_loaded_fused_alone(kind: str):
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    rules = get_checkpoint_conversion_mapping(kind) or []
    assert not any("experts.*" in each for rule in rules for each in rule.source_patterns)


def test_routers_are_known_by_the_end_of_their_names():
    for kind, names in {
        "mixtral": (
            "model.layers.3.block_sparse_moe.gate.weight",
            "model.layers.3.mlp.gate.weight",
        ),
        "deepseek_v3": ("model.layers.3.mlp.gate.e_score_correction_bias",),
        "gpt_oss": ("model.layers.0.mlp.router.bias",),
        "llama4": ("language_model.model.layers.0.feed_forward.router.weight",),
        "gemma4": ("model.layers.0.router.per_expert_scale", "model.layers.0.router.proj.weight"),
    }.items():
        assert all(is_router(ROUTERS[kind], name) for name in names)
    assert not is_router(ROUTERS["qwen2_moe"], "model.layers.0.mlp.shared_expert_gate.weight")
    assert not is_router(ROUTERS["qwen2_moe"], "model.layers.0.mlp.gate_proj.weight")
    assert set(LAYOUTS) <= set(ROUTERS)
