"""Packed models: bytes that come back, random access, damage, and merging from them."""

import dataclasses
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.names.ties import tied_tensors
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, NonFiniteError, PackedModelError
from merge_ops.jobs.assembly import merge
from merge_ops.jobs.packing import PackingSink
from merge_ops.jobs.restoring import copy_files, restore
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources import packed_source
from merge_ops.sources.packed_index import INDEX_FILE, PIECE, parse_index
from merge_ops.sources.packed_source import PackedSource
from merge_ops.stream.stream import StreamSettings
from tests.models import checkpoint_factory as factory

BASE = "b" * 64


def special(base: torch.Tensor) -> torch.Tensor:
    """A copy with NaN payloads, infinities and a negative zero."""
    made = base.clone()
    words = made.view(torch.int16).view(-1)
    words[:5] = torch.tensor([0x7FC1, -0x0080, 0x7F80, -0x8000, -0x007F], dtype=torch.int16)
    return made


def write_models(root: Path) -> tuple[Path, Path]:
    """A base, and an expert with every kind of tensor; a tensor of more than two pieces."""
    torch.manual_seed(3)
    wide = (torch.randn(PIECE * 2 // 512 + 3, 512) * 0.02).bfloat16()
    base = {
        "wide": wide,
        "half": torch.randn(40, 30).half(),
        "single": torch.randn(17, 9),
        "special": torch.randn(64).bfloat16(),
        "other shape": torch.randn(4, 4),
        "other dtype": torch.randn(4, 4),
        "same": torch.randn(100).bfloat16(),
        "numbers": torch.arange(5),
    }
    expert = {
        "wide": (wide.float() + torch.randn(wide.shape) * 1e-4).bfloat16(),
        "half": base["half"] + 0.001,
        "single": base["single"] * 1.00001,
        "special": special(base["special"]),
        "other shape": torch.randn(2, 8),
        "other dtype": torch.randn(4, 4).double(),
        "same": base["same"],
        "numbers": torch.arange(5) + 1,
        "new": torch.randn(33),
        "empty": torch.empty(0, 7),
        "flags": torch.tensor([True, False, True]),
    }
    for name, tensors in (("base", base), ("expert", expert)):
        (root / name).mkdir()
        save_file(tensors, root / name / "model.safetensors", metadata={"made": "by hand 手"})
        (root / name / "config.json").write_text('{"model_type": "x"}')
    return root / "base", root / "expert"


def open_base(folder: Path) -> Checkpoint:
    return open_checkpoint("base", FolderSource(folder), BASE)


def pack(expert: Path, base: Checkpoint, out: Path, threads: int = 2) -> PackedSource:
    out.mkdir()
    with PackingSink(out, base, threads) as sink:
        copy_files(FolderSource(expert), sink)
        sink.finish()
    return PackedSource(FolderSource(out), base)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PackedSource]:
    """The expert's folder, and the same packed."""
    root = tmp_path_factory.mktemp("packing")
    base, expert = write_models(root)
    return expert, pack(expert, open_base(base), root / "packed")


def test_the_files_come_back_to_the_byte(packed, tmp_path: Path) -> None:
    expert, source = packed
    restore(source, FolderSink(tmp_path))
    for path in expert.iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes()
    kinds = {each.name: each.from_base for each in source.index.files[-1].sections}
    differences = {name for name, from_base in kinds.items() if from_base}
    assert differences == {"wide", "half", "single", "special", "same"}
    assert source.index.packed_nbytes < 0.35 * source.index.nbytes


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_range_of_bytes_is_that_of_the_file(packed, data: st.DataObject) -> None:
    expert, source = packed
    whole = (expert / "model.safetensors").read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    count = data.draw(st.integers(0, len(whole) - start) | st.integers(0, 3000))
    count = min(count, len(whole) - start)
    buffer = bytearray(count)
    source.read_into("model.safetensors", start, memoryview(buffer))
    assert bytes(buffer) == whole[start : start + count]


def test_neighbours_decode_a_piece_once(packed, monkeypatch: pytest.MonkeyPatch) -> None:
    expert, source = packed
    fresh, decoded = PackedSource(source._source, source._base), []
    real = packed_source.decode_difference

    def counting(coded: bytes, values: np.ndarray, dtype: str) -> None:
        decoded.append(len(values))
        real(coded, values, dtype)

    monkeypatch.setattr(packed_source, "decode_difference", counting)
    section = next(each for each in fresh.index.files[-1].sections if each.name == "wide")
    whole = (expert / "model.safetensors").read_bytes()
    step = section.nbytes // 20 + 2

    def read(start: int) -> None:
        buffer = bytearray(min(step, section.start + section.nbytes - start))
        fresh.read_into("model.safetensors", start, memoryview(buffer))
        assert bytes(buffer) == whole[start : start + len(buffer)]

    starts = range(section.start, section.start + section.nbytes, step)
    threads = [threading.Thread(target=read, args=(start,)) for start in starts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(decoded) == section.nbytes
    assert len(decoded) == len(section.lengths) == 3


def test_a_read_outside_the_file_is_an_error(packed) -> None:
    _, source = packed
    size = source.sizes()["model.safetensors"]
    with pytest.raises(OSError, match=f"it has {size} bytes"):
        source.read_into("model.safetensors", size - 1, memoryview(bytearray(2)))
    with pytest.raises(OSError, match="there is no such file"):
        source.read_into("other", 0, memoryview(bytearray(2)))


RECIPES = {
    "task_arithmetic": "{weight: 0.5}",
    "ties": "{density: 0.3, weight: 1.0}",
    "dare_linear": "{density: 0.5, weight: 1.0}",
}


@pytest.mark.parametrize("method", RECIPES)
def test_merges_from_packed_are_the_same_files(method: str, tmp_path: Path) -> None:
    """Same plan digest and same bytes, for blocks smaller, as large as and larger than a piece."""
    torch.manual_seed(1)
    shape = (PIECE * 2 // 100, 100)
    base = {"a": (torch.randn(shape) * 0.02).bfloat16(), "b": torch.randn(333)}
    for name in ("base", "one", "two"):
        moved = {
            key: value if name == "base" else (value + torch.randn(value.shape) * 1e-4)
            for key, value in base.items()
        }
        (tmp_path / name).mkdir()
        tensors = {key: value.to(base[key].dtype) for key, value in moved.items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    text = f"""
merge_method: {method}
base_model: base
models: [{{model: one}}, {{model: two}}]
parameters: {RECIPES[method]}
dtype: bfloat16
"""
    recipe, below = parse_recipe(text, "r", "r"), open_base(tmp_path / "base")
    full = {"base": below, **{n: opened(n, FolderSource(tmp_path / n)) for n in ("one", "two")}}
    thin = dict(full)
    for name in ("one", "two"):
        thin[name] = opened(name, pack(tmp_path / name, below, tmp_path / f"packed {name}"))
    made: list[bytes] = []
    for number, (models, block) in enumerate(
        [(full, None), (thin, 1 << 16), (thin, PIECE), (thin, 1 << 19)]
    ):
        plan = plan_merge(recipe, models)
        assert plan.outputs[0].digest == plan_merge(recipe, full).outputs[0].digest is not None
        out = tmp_path / f"out {number}"
        out.mkdir()
        stream = StreamSettings(threads=2, device="cpu", block=block)
        merge(plan, {"default": FolderSink(out)}, stream)
        made.append((out / "model.safetensors").read_bytes())
    assert len(set(made)) == 1


def opened(name: str, source: FolderSource | PackedSource) -> Checkpoint:
    return open_checkpoint(name, source, name[0] * 64)


def test_nan_in_a_packed_expert_is_refused_as_in_a_full_one(packed, tmp_path: Path) -> None:
    _, source = packed
    names = ("special", "same")
    base, expert = (
        dataclasses.replace(each, tensors={name: each.tensors[name] for name in names})
        for each in (source._base, opened("expert", source))
    )
    text = "merge_method: linear\nmodels: [{model: base}, {model: expert}]\nparameters: {weight: 1}"
    plan = plan_merge(parse_recipe(text, "r", "r"), {"base": base, "expert": expert})
    with pytest.raises(NonFiniteError, match="tensor 'special' holds NaN or infinity"):
        merge(plan, {"default": FolderSink(tmp_path)}, StreamSettings(threads=1, device="cpu"))


def test_another_base_is_refused(packed) -> None:
    _, source = packed
    other = dataclasses.replace(source._base, digest="c" * 64)
    with pytest.raises(PackedModelError, match="give the base it was packed against"):
        PackedSource(source._source, other)
    lacking = dataclasses.replace(source._base, tensors={})
    with pytest.raises(PackedModelError, match="packed against a tensor that base has not"):
        PackedSource(source._source, lacking)


def test_damage_in_the_data_is_told_with_its_place(packed, tmp_path: Path) -> None:
    _, source = packed
    copy_files(source._source, FolderSink(tmp_path))
    data = tmp_path / "model.safetensors.packed"
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    spoiled = PackedSource(FolderSource(tmp_path), source._base)
    with pytest.raises(PackedModelError, match=r"bytes \d+ to \d+ are damaged \(its checksum"):
        restore(spoiled, FolderSink(tmp_path))
    data.write_bytes(content[:-1])
    with pytest.raises(PackedModelError, match=r"model.safetensors.packed has \d+ bytes, but"):
        PackedSource(FolderSource(tmp_path), source._base)


def drop_piece(index: dict) -> None:
    index["files"][-1]["sections"][1]["lengths"].pop()


def change(*path: str | int, to: object):
    def apply(index: dict) -> None:
        at = index
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = to

    return apply


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (change("version", to=2), "a later release may have written it"),
        (change("piece", to=5), "a later release may have written it"),
        (change("base", to="x"), "the index of the packed model is damaged"),
        (change("files", to=[]), "lists no file"),
        (change("files", 0, "path", to="../x"), "is damaged"),
        (change("files", 0, "size", to=-1), "is damaged"),
        (change("files", -1, "sections", 1, "nbytes", to=True), "is damaged"),
        (change("files", -1, "sections", 1, "dtype", to="Q8"), "is damaged"),
        (change("files", -1, "sections", 0, "from_base", to=True), "is damaged"),
        (drop_piece, "is damaged"),
    ],
)
def test_a_damaged_index_is_refused(packed, spoil, told: str) -> None:
    _, source = packed
    index: dict = json.loads(json.dumps(source.index.to_json()))
    assert parse_index(json.dumps(index).encode(), "here") == source.index
    spoil(index)
    with pytest.raises(PackedModelError, match=told):
        parse_index(json.dumps(index).encode(), f"here/{INDEX_FILE}")
    for garbage in (b"", b"[]", b"{}", b"[" * 100_000):
        with pytest.raises(PackedModelError, match="here: the index of the packed model"):
            parse_index(garbage, "here")


def test_what_cannot_be_packed_is_told(packed, tmp_path: Path) -> None:
    _, source = packed
    base = source._base
    with pytest.raises(PackedModelError, match="has no digest"):
        PackingSink(tmp_path, dataclasses.replace(base, digest=None))
    files: Mapping[str, bytes] = {"a.safetensors": b"\xff" * 40, "b.safetensors": b"123"}
    with PackingSink(tmp_path, base, called="/models/x") as sink:
        for name, content in files.items():
            with (
                pytest.raises(CheckpointError, match=f"/models/x/{name}"),
                sink.open(name, len(content)) as writer,
            ):
                writer.write(content)
        with pytest.raises(PackedModelError, match="a name that packed models use"):
            sink.open(INDEX_FILE, 3)
        whole = (packed[0] / "model.safetensors").read_bytes()
        with (
            pytest.raises(CheckpointError, match="fewer than its"),
            sink.open("model.safetensors", len(whole)) as writer,
        ):
            writer.write(whole[:-1])


@pytest.mark.parametrize("own", [True, False], ids=["own head", "copied head"])
def test_a_tie_is_told_from_packed_bytes(tmp_path: Path, own: bool) -> None:
    """Under a config that says tied: the bytes are decoded to see whose head it is."""
    shape = factory.QWEN2
    base = factory.write_checkpoint(tmp_path / "base", factory.base_tensors(shape), shape)
    tensors = factory.expert_tensors(factory.base_tensors(shape), 1)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + (0.1 if own else 0)
    expert = factory.write_checkpoint(tmp_path / "expert", tensors, shape)
    source = pack(expert, open_base(base), tmp_path / "packed")
    checkpoint = open_checkpoint("expert", source)
    copies = {} if own else {"lm_head.weight": "model.embed_tokens.weight"}
    assert tied_tensors(checkpoint) == copies
    assert tied_tensors(open_checkpoint("expert", FolderSource(expert))) == copies
