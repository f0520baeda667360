"""On a GPU: the same masks to the bit, the same merges to float32 rounding. Needs one."""

from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.checkpoint import open_checkpoint
from merge_ops.errors import DeviceError
from merge_ops.jobs.assembly import merge
from merge_ops.measures.randomness import keep_mask, keep_mask_by_level, stream_key
from merge_ops.measures.rows import row_ranks
from merge_ops.methods import METHODS
from merge_ops.methods.della import keep_chances
from merge_ops.plans.plan import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.device import open_device
from merge_ops.stream.stream import StreamSettings
from tests import checkpoint_factory as factory

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_asking_for_a_gpu_where_there_is_none():
    with pytest.raises(DeviceError, match="'cuda' was asked for, but torch sees no GPU"):
        open_device("cuda")


def test_unknown_device():
    with pytest.raises(DeviceError, match="'gpu' is unknown; allowed: auto, cpu, cuda"):
        open_device("gpu")


@needs_gpu
@pytest.mark.parametrize("start", [0, 65_536, 2**33 + 8 * 77])
def test_masks_are_the_same_bits(start):
    key = stream_key(3, "model.layers.0.mlp.up_proj.weight", "herbs")
    for density in (0.1, 0.5, 0.99):
        ours = keep_mask(key, start, 100_001, density, torch.device("cuda")).cpu()
        assert torch.equal(ours, keep_mask(key, start, 100_001, density, torch.device("cpu")))


@needs_gpu
def test_masks_by_rank_are_the_same_bits():
    key = stream_key(3, "model.layers.0.mlp.up_proj.weight", "herbs")
    magnitude = torch.randn(300, 257, generator=torch.Generator().manual_seed(1)).abs()
    ranks = row_ranks(magnitude)
    assert torch.equal(row_ranks(magnitude.cuda()).cpu(), ranks)
    chances = keep_chances(0.5, 0.3, 257)
    mask = keep_mask_by_level(key, 257, ranks, chances)
    assert torch.equal(keep_mask_by_level(key, 257, ranks.cuda(), chances).cpu(), mask)


@needs_gpu
@pytest.mark.parametrize("name", sorted(METHODS))
def test_merges_agree_with_the_cpu(name, tmp_path):
    shape = factory.Shape("qwen2", layers=2, hidden=256, vocabulary=3000, dtype=torch.bfloat16)
    family = factory.write_family(tmp_path / "family", shape, experts=3)
    method = METHODS[name]
    values = {"weight": 0.6, "density": 0.4, "t": 0.3, "select_topk": 0.4, "gradient_values": 0.3}
    parameters = {key: values[key] for key in values if key in method.parameter_specs}
    with_base = method.inputs == "checkpoints"
    experts = family.experts[: (method.exactly or 3 + with_base) - with_base] or (family.base,)
    lines = [f"merge_method: {name}", f"base_model: {family.base}", "models:"]
    lines += [f"  - model: {folder}" for folder in experts]
    lines += [f"parameters: {parameters}", "dtype: float32"]
    recipe = parse_recipe("\n".join(lines).replace("'", ""), name, name)
    results = {}
    for device in ("cpu", "cuda"):
        names = recipe.referenced_models
        opened = {each: open_checkpoint(each, FolderSource(Path(each))) for each in names}
        out = tmp_path / device
        settings = StreamSettings(threads=3, device=device, block=1 << 17)
        merge(plan_merge(recipe, opened), {"default": FolderSink(out)}, settings)
        results[device] = factory.read_tensors(out)
    for key, tensor in results["cpu"].items():
        torch.testing.assert_close(results["cuda"][key], tensor, rtol=2e-6, atol=1e-8)
