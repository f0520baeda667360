"""Many small tensors: merged together, planned and told once each way, whatever their number."""

import json
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import blake3
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from merge_ops.checkpoints.checkpoint import Stored
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.header import TensorEntry
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import NonFiniteError
from merge_ops.jobs.assembly import merge
from merge_ops.methods import parameters as parameter_specs
from merge_ops.plans import plan as plans
from merge_ops.plans import resolution
from merge_ops.plans.plan import plain_parameters
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream import block_reader, stream
from merge_ops.stream import together as together_module
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.together import StoredTogether

LAYERS = 60
MIXED = """
merge_method: {method}
base_model: base
models: [{{model: a{weight}}}, {{model: b{weight}}}]
parameters: {parameters}
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """Three models of 240 tensors of 12 elements, a few larger ones among them."""
    root = tmp_path_factory.mktemp("small")
    models = {}
    for seed, name in enumerate(("base", "a", "b")):
        draw = torch.Generator().manual_seed(seed)
        tensors = {"model.norm.weight": torch.randn(3, generator=draw)}
        for layer in range(LAYERS):
            for part in ("gate", "up", "down", "out"):
                size = (3, 4) if layer % 20 or part != "up" else (200, 100)
                key = f"model.layers.{layer}.mlp.{part}_proj.weight"
                tensors[key] = torch.randn(size, generator=draw)
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors", metadata={"format": "pt"})
        config = {"model_type": "none_such", "num_hidden_layers": LAYERS}
        (root / name / "config.json").write_text(json.dumps(config))
        models[name] = open_checkpoint(name, FolderSource(root / name), f"digest of {name}")
    return models


def plan_of(opened, method="task_arithmetic", parameters="{lambda: 0.5}"):
    weight = "" if method in ("model_stock", "sce") else ", parameters: {weight: 0.4}"
    text = MIXED.format(method=method, parameters=parameters, weight=weight)
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened)


@pytest.fixture
def submitted(monkeypatch):
    """Names of the functions that pools were given while a test runs."""
    calls = []
    submit = ThreadPoolExecutor.submit

    def counted(pool, function, /, *given, **named):
        calls.append(function.__name__)
        return submit(pool, function, *given, **named)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", counted)
    return calls


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("task_arithmetic", "{lambda: 0.5}"),
        ("task_arithmetic", "{lambda: [0.2, 0.9]}"),
        ("ties", "{density: 0.3}"),
        ("dare_ties", "{density: 0.5}"),
        ("model_stock", "{}"),
        ("sce", "{select_topk: 0.5}"),
    ],
)
def test_tensors_merged_together_are_those_merged_alone(
    opened, tmp_path, monkeypatch, submitted, method, parameters
):
    plan = plan_of(opened, method, parameters)
    settings = StreamSettings(threads=2, device="cpu", block=4096)
    merge(plan, tmp_path / "together", settings)
    together = submitted.count("_merge_blocks")
    submitted.clear()
    monkeypatch.setattr(stream, "MOST_TOGETHER", 0)
    merge(plan, tmp_path / "alone", settings)
    large = 3 * -(-200 * 100 // 4096)
    assert submitted.count("_merge_blocks") >= len(plan.steps)
    assert together <= large + 3 * 2 + 2
    for file in sorted((tmp_path / "alone").iterdir()):
        assert (tmp_path / "together" / file.name).read_bytes() == file.read_bytes(), file.name


def test_progress_counts_every_tensor(opened, tmp_path):
    plan, seen = plan_of(opened), []
    merge(plan, tmp_path / "out", StreamSettings(threads=2), lambda done, _: seen.append(done))
    assert seen == sorted(seen)
    assert seen[-1] == plan.bytes_read


def test_parameters_that_are_the_same_everywhere_are_resolved_once(opened, monkeypatch):
    evaluated = []
    evaluate = parameter_specs.evaluate

    def counted(*given):
        evaluated.append(given)
        return evaluate(*given)

    monkeypatch.setattr(resolution, "evaluate", counted)
    steps = plan_of(opened).steps
    assert len({id(step.parameters[0]) for step in steps}) == 1
    assert len(evaluated) <= 4
    evaluated.clear()
    gradient = plan_of(opened, parameters="{lambda: [0.0, 1.0]}").steps
    assert len({step.parameters[0] for step in gradient}) == LAYERS
    assert len(evaluated) >= len(gradient)
    named = "{lambda: [{filter: up_proj, value: 0.1}, {value: 0.7}]}"
    filtered = plan_of(opened, parameters=named).steps
    of_up = {step.parameters[0] for step in filtered if "up_proj" in step.output.name}
    others = {step.parameters[0] for step in filtered if "up_proj" not in step.output.name}
    assert len(of_up) == len(others) == 1
    assert of_up != others


def whole_text_digest(plan):
    """The digest as one text gives it, which is how it was made until there were pieces."""
    planned = [step.planned for step in plan.steps]
    identity = {
        "version": plans.PLAN_VERSION,
        "method": plan.method.identity,
        "arithmetic": plan.arithmetic,
        "seed": plan.recipe.seed if plan.method.random else None,
        "base": plan.digest_of(plan.base),
        "config": plan.config,
        "streams": [c.name for c in plan.inputs] if plan.method.random else None,
        "shards": [shard.header.hex() for shard in plan.shards],
        "excluded": sorted(plan.excluded),
        "tensors": [
            [
                step.output.name,
                step.action,
                [source.identity(plan.digest_of) for source in step.sources],
                plain_parameters(step.parameters, 0),
            ]
            for step in planned
        ],
    }
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return blake3.blake3(text.encode()).hexdigest()


@pytest.mark.parametrize("method", ["task_arithmetic", "dare_ties"])
def test_a_digest_in_pieces_is_that_of_the_whole_text(opened, monkeypatch, method):
    parameters = "{lambda: [0.0, 1.0]}"
    told = []
    monkeypatch.setattr(
        plans, "plain_parameters", lambda *given: told.append(1) or plain_parameters(*given)
    )
    plan = plan_of(opened, method, parameters)
    (output,) = plan.outputs
    assert len(told) == LAYERS  # of 241 tensors, those of a layer have the same
    assert output.digest == whole_text_digest(plan)


def test_pieces_are_the_text_of_any_content():
    for items in ([], [1], list(range(2500)), [{"b": "中", "a": None}]):
        for content in ({}, {"a": 1}, {"z": [2]}, {"a": {"k": '"n":[]'}, "z": 3}):
            pieces = plans._pieces_of(content, {"n": plans._joined(items)})
            whole = json.dumps(
                {**content, "n": items}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
            )
            assert "".join(pieces) == whole


def test_a_tensor_that_is_not_finite_is_named_among_small_ones(opened, tmp_path):
    from merge_ops.errors import NonFiniteError

    folder = tmp_path / "spoiled"
    folder.mkdir()
    source = FolderSource(opened["a"].source.location)
    data = bytearray((folder.parent / source.location / "model.safetensors").read_bytes())
    name = "model.layers.31.mlp.down_proj.weight"
    at = opened["a"].tensors[name].offset + 8
    data[at : at + 4] = np.float32(np.nan).tobytes()
    (folder / "model.safetensors").write_bytes(data)
    (folder / "config.json").write_text(json.dumps(dict(opened["a"].config)))
    spoiled = open_checkpoint("a", FolderSource(folder), "another digest")
    plan = plan_of({**opened, "a": spoiled})
    with pytest.raises(NonFiniteError, match=rf"tensor '{name}' holds NaN or infinity \(1 in"):
        merge(plan, tmp_path / "out", StreamSettings(threads=2))


@pytest.mark.parametrize("method", ["task_arithmetic", "linear", "magmax"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("parameters", ["{}", "a sweep"])
def test_tensors_that_are_alike_are_merged_as_one_with_the_same_bits(
    opened, method, dtype, parameters, monkeypatch
):
    plan = small_plan(opened, method, dtype, parameters)
    reads = counted_reads(monkeypatch)
    together = results_of(plan)
    few = len(reads)
    monkeypatch.setattr(together_module, "_goes_together", lambda *_: False)
    reads.clear()
    assert results_of(plan) == together
    if parameters == "{}":
        assert few < len(reads) / 5


def test_a_bad_value_among_tensors_merged_as_one_is_told_by_its_own_name(opened, tmp_path):
    name = "model.layers.7.mlp.up_proj.weight"
    spoiled = copy_with(opened["a"], tmp_path, name, float("inf"))
    plan = small_plan({**opened, "a": spoiled}, "task_arithmetic", "float32", "{}")
    with pytest.raises(NonFiniteError, match=rf"model 'a': tensor '{name}' holds NaN or infinity"):
        results_of(plan)


def test_a_sum_that_float16_cannot_hold_is_told_by_its_own_name(opened, tmp_path):
    name = "model.layers.7.mlp.up_proj.weight"
    large = copy_with(opened["a"], tmp_path, name, 1e6)
    plan = small_plan({**opened, "a": large}, "task_arithmetic", "float16", "{}")
    with pytest.raises(NonFiniteError, match=rf"tensor '{name}'.*element 0 becomes .*float16"):
        results_of(plan)


@pytest.mark.parametrize("order", ["as written", "scattered", "other files"])
def test_members_are_read_wherever_they_lie(order):
    data = bytes(range(200)) * 2000
    source = SimpleNamespace(location="there")
    read = []

    def read_into(file, offset, buffer):
        read.append((file, offset, len(buffer)))
        buffer[:] = data[offset : offset + len(buffer)]

    source.read_into = read_into
    checkpoint = SimpleNamespace(name="a", source=source)
    starts = {
        "as written": [0, 8, 16, 24],
        "scattered": [24, 0, 16, 8],
        "other files": [0, 8, 0, 8],
    }[order]
    files = ["one", "one", "two", "two"] if order == "other files" else ["one"] * 4
    members = tuple(
        Stored(checkpoint, f"t{at}", TensorEntry("F32", (2,), file, at, 8))
        for file, at in zip(files, starts, strict=True)
    )
    whole = StoredTogether(checkpoint, "t", TensorEntry("F32", (8,), "one", 0, 32), members)
    buffer = memoryview(bytearray(32))
    block_reader._fetch(whole, 0, buffer)
    assert bytes(buffer) == b"".join(data[at : at + 8] for at in starts)
    assert len(read) == (2 if order == "other files" else 1)


def small_plan(opened, method, dtype, parameters):
    weight = "" if method == "magmax" else ", parameters: {weight: 0.4}"
    own = "{lambda: [0.2, 0.9]}" if parameters != "{}" and method == "task_arithmetic" else "{}"
    base = "" if method == "linear" else "base_model: base\n"
    text = (
        f"merge_method: {method}\n{base}dtype: {dtype}\nparameters: {own}\n"
        f"models: [{{model: a{weight}}}, {{model: b{weight}}}]\n"
    )
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened)


def results_of(plan):
    """Bytes of every tensor and coefficient, as the stream hands them out."""
    found = []

    def take(tensor, blocks):
        found.append((tensor, [bytes(each) for each in blocks]))

    stream.BlockStream(plan, StreamSettings(device="cpu")).run(take)
    return found


def counted_reads(monkeypatch):
    reads = []
    read_into = FolderSource.read_into

    def counted(self, file, offset, buffer):
        reads.append(file)
        read_into(self, file, offset, buffer)

    monkeypatch.setattr(FolderSource, "read_into", counted)
    return reads


def copy_with(checkpoint, folder, name, value):
    """The checkpoint with one tensor that begins with a value."""
    tensors = load_file(f"{checkpoint.source.location}/model.safetensors")
    tensors[name].view(-1)[0] = value
    (folder / "config.json").write_text(json.dumps(dict(checkpoint.config)))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return open_checkpoint("a", FolderSource(folder), "digest of another")
