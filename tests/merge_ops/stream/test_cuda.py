"""On a GPU: the same masks to the bit, the same merges to float32 rounding. Needs one."""

from pathlib import Path

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import DeviceError
from merge_ops.jobs.assembly import merge
from merge_ops.measures.randomness import stream_key, threshold_of, thresholds
from merge_ops.measures.thresholds import ThresholdSearch
from merge_ops.methods import METHODS
from merge_ops.methods.della import keep_chances
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.device import arithmetic_kind, choose_device, open_device
from merge_ops.stream.stream import StreamSettings
from tests.merges.method_settings import inputs, merged_whole, usual_parameters
from tests.models import checkpoint_factory as factory

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU here")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_asking_for_a_gpu_where_there_is_none():
    with pytest.raises(DeviceError, match="'cuda' was asked for, but torch sees no GPU"):
        open_device("cuda")


def test_unknown_device():
    with pytest.raises(DeviceError, match="'gpu' is unknown; allowed: auto, cpu, cuda"):
        open_device("gpu")


def arithmetics():
    """Of the GPU, and of the CPU."""
    return open_device("cuda").arithmetic, open_device("cpu").arithmetic


def drawn(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def test_one_chooser_tells_what_a_device_stands_for():
    assert choose_device("cpu") == arithmetic_kind("cpu") == open_device("cpu").arithmetic.kind
    assert choose_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")


@needs_gpu
@pytest.mark.parametrize("start", [0, 65_536, 2**33 + 8 * 77])
def test_masks_are_the_same_bits(start):
    key, ones = stream_key(3, "model.layers.0.mlp.up_proj.weight", "herbs"), torch.ones(100_001)
    for density in (0.1, 0.5, 0.99):
        masks = [by.keep_random(key, start, ones, threshold_of(density)) for by in arithmetics()]
        assert torch.equal(masks[0].cpu(), torch.as_tensor(masks[1]))


@needs_gpu
def test_masks_by_rank_are_the_same_bits():
    key = stream_key(3, "model.layers.0.mlp.up_proj.weight", "herbs")
    rows, chances = drawn(300, 257), thresholds(keep_chances(0.5, 0.3, 257))
    masks = [by.decide_by_rank(key, 257, rows, chances) for by in arithmetics()]
    assert torch.equal(masks[0].cpu(), torch.as_tensor(masks[1]))


@needs_gpu
def test_thresholds_are_counted_on_the_gpu_and_are_the_same():
    values, found = drawn(300_000), []
    for by in arithmetics():
        search = ThresholdSearch(by, 90_000, len(values), 1 << 20)
        block = by.from_host(values.numpy())
        search.look(block[::20].contiguous() if by.kind != "cpu" else block[::20])
        while search.threshold is None:
            search.absorb([search.observe(block)])
        found.append(search.threshold)
    assert found[0] == found[1]


@needs_gpu
def test_a_gpu_is_a_kind_of_its_own():
    assert arithmetic_kind("cpu") == "cpu"
    assert arithmetic_kind("cuda").startswith("cuda, ")


@needs_gpu
@pytest.mark.parametrize("name", sorted(METHODS))
def test_measures_copy_no_whole_block_to_the_host(name, monkeypatch):
    """What leaves the GPU while a block is measured and merged is a small part of it."""
    method, left = METHODS[name], []
    copy = torch.Tensor.cpu

    def counting(tensor, *how, **more):
        left.append(tensor.numel())
        return copy(tensor, *how, **more)

    tensors = [each.reshape(-1, 512) for each in inputs(method, 1 << 20)]
    parameters = usual_parameters(method, len(tensors))
    if method.span_for([parameters]) == "element":
        tensors = [each.reshape(-1) for each in tensors]
    monkeypatch.setattr(torch.Tensor, "cpu", counting)
    merged_whole(name, tensors, parameters, open_device("cuda").arithmetic)
    assert max(left, default=0) < (1 << 20) / 4


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
