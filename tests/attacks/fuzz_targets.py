"""What reads files of strangers, each with a way to make a spoiled one: for the fuzz tests.

A target takes a generator and does one whole read by the public readers. It may end well or with
an error of ours; whatever else it does is a find. `Outside` says that it asked for what it was not
given.
"""

import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import Any

from assets.work.suite_files import load_suite
from eval_ops.suites import shipped_suites
from merge_ops.checkpoints.checkpoint import Checkpoint, source_of
from merge_ops.checkpoints.files.byte_sources import FolderSource, read_file
from merge_ops.checkpoints.files.copied_files import pieces_of
from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.checkpoints.vocabulary import vocabulary
from merge_ops.jobs.emr_masks import FORMAT, MASKS_FILE, open_masks
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.side_files import side_files
from merge_ops.provenance.model_card import model_card
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import open_adapter
from merge_ops.vocabularies.chat_templates import template_of
from merge_ops.vocabularies.tokenizer_files import tokenizer_files
from merge_ops.vocabularies.tokenizers import read_tokenizer
from orchestration.catalogs import load_catalog
from resources.errors import ResourceError
from resources.store.artifact import FileRecord, content_digest
from resources.store.artifact_store import ArtifactStore
from resources.upstream.folder_source import FolderModel
from tests.attacks.fuzz_samples import (
    ADAPTER_CONFIG,
    CONFIG,
    GENERATION,
    ITEM,
    MANIFEST,
    MODELS_FILE,
    RECIPES,
    REF,
    SUITE,
    TOKENIZER,
    TOKENIZER_CONFIG,
    YAML_PIECES,
)  # fmt: skip
from tests.models.spoiling import fresh, spoil, spoil_bytes, spoil_folder, spoil_text, spoiled_json

Files = Mapping[str, bytes]
Shapes = Mapping[str, tuple[str, tuple[int, ...]]]
MODEL: Shapes = {
    "model.embed_tokens.weight": ("F32", (4, 2)),
    "model.layers.0.self_attn.q_proj.weight": ("F32", (2, 2)),
    "model.layers.1.self_attn.q_proj.weight": ("F32", (2, 2)),
    "model.norm.weight": ("F32", (2,)),
}
ADAPTER: Shapes = {
    f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{role}.weight": ("F32", (2, 2))
    for layer in (0, 1)
    for role in "AB"
}
PREFIX = "base_model.model."
PRIVATE = b"what lies beside the folder is nobody's business"

shipped_suites()  # our own folder, listed once: before any case is watched


class Outside(Exception):
    """A reader asked for a file or a range that it was not given."""


@dataclass(frozen=True)
class MemorySource:
    """The files of a checkpoint, in memory."""

    files: Files
    location: str = "memory"

    def sizes(self) -> dict[str, int]:
        return {name: len(data) for name, data in self.files.items()}

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        if file not in self.files:
            raise Outside(f"file {file!r}")
        part = self.files[file][offset : offset + len(buffer)]
        if offset < 0 or len(part) != len(buffer):
            raise Outside(f"bytes {offset} to {offset + len(buffer)} of {file!r}")
        buffer[:] = part


def header_of(shapes: Shapes) -> tuple[dict[str, Any], int]:
    """A right header for these tensors, and the bytes of their data."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, (dtype, shape) in shapes.items():
        end = position + prod(shape) * ITEM_SIZES[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    return header, position


def weights(shapes: Shapes) -> bytes:
    """A right safetensors file of zeros."""
    header, size = header_of(shapes)
    return _file(json.dumps(header).encode(), size)


def _file(header: bytes, size: int) -> bytes:
    return len(header).to_bytes(8, "little") + header + bytes(size)


def _drawn_shapes(rng: random.Random) -> Shapes:
    """Tensors of any dtypes and small shapes, empty ones among them."""
    return {
        rng.choice((f"layer.{number}.weight", "根" * number, f"model.layers.{number}.x")): (
            rng.choice(tuple(ITEM_SIZES)),
            tuple(rng.choice((0, 1, 2, 3)) for _ in range(rng.randrange(4))),
        )
        for number in range(rng.randrange(5))
    }


def _spoiled_file(rng: random.Random, shapes: Shapes) -> bytes:
    header, size = header_of(shapes)
    text = spoiled_json(rng, header)
    data = _file(text, size)
    chance = rng.random()
    if chance < 0.04:
        wrong = rng.choice(
            (0, 1, len(text) - 1, len(text) + 1, 2**31, 100_000_001, 2**63, 2**64 - 1)
        )
        return max(wrong, 0).to_bytes(8, "little") + data[8:]
    return spoil_bytes(rng, data) if chance < 0.08 else data


def _use(checkpoint: Checkpoint) -> None:
    """What every user of a checkpoint does first."""
    for name in checkpoint.tensors:
        name.encode()  # names are written into headers, digests and messages
        source = source_of(checkpoint, name)
        assert source is not None
        assert prod(source.shape) >= 0
    assert checkpoint.nbytes >= 0
    assert checkpoint.stem
    assert checkpoint.ties_embeddings in (True, False)


def header(rng: random.Random, folder: Path) -> None:
    shapes = MODEL if rng.random() < 0.5 else _drawn_shapes(rng)
    _use(open_checkpoint("m", MemorySource({"model.safetensors": _spoiled_file(rng, shapes)})))


def index(rng: random.Random, folder: Path) -> None:
    names = list(MODEL)
    files = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    weight_map = {name: files[number % 2] for number, name in enumerate(names)}
    document = {"metadata": {"total_size": 72}, "weight_map": weight_map}
    content = {"model.safetensors.index.json": spoiled_json(rng, document)}
    for number, file in enumerate(files):
        part = {name: MODEL[name] for name in names[number::2]}
        content[file] = _spoiled_file(rng, part) if rng.random() < 0.1 else weights(part)
    _use(open_checkpoint("m", MemorySource(content)))


def config(rng: random.Random, folder: Path) -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": spoiled_json(rng, fresh(CONFIG))}
    _use(open_checkpoint("m", MemorySource(files)))


def adapter(rng: random.Random, folder: Path) -> None:
    content = {
        "adapter_config.json": spoiled_json(rng, fresh(ADAPTER_CONFIG)),
        "adapter_model.safetensors": (
            _spoiled_file(rng, ADAPTER) if rng.random() < 0.3 else ADAPTER_WEIGHTS
        ),
    }
    _use(open_adapter("a", BASE, MemorySource(content)))


def tokenizer(rng: random.Random, folder: Path) -> None:
    checkpoint = open_checkpoint("m", MemorySource(_model_files(rng, 0.6)))
    for read in (vocabulary, template_of):
        read(checkpoint)
    found = read_tokenizer(checkpoint)
    tokenizer_files(checkpoint, found, None)


def _model_files(rng: random.Random, chance: float) -> dict[str, bytes]:
    """A model's files, each spoiled with a chance."""
    files = {"model.safetensors": WEIGHTS}
    documents: dict[str, Mapping[str, Any]] = {
        "config.json": CONFIG,
        "generation_config.json": GENERATION,
        "tokenizer.json": TOKENIZER,
        "tokenizer_config.json": TOKENIZER_CONFIG,
        "chat_template.json": {"chat_template": [{"name": "default", "template": "{{ a }}"}]},
    }
    if rng.random() < 0.2:
        documents["vocab.json"] = documents.pop("tokenizer.json")["model"]["vocab"]
    for name, document in documents.items():
        own = fresh(document)
        spoiled = rng.random() < chance
        files[name] = spoiled_json(rng, own) if spoiled else json.dumps(own).encode()
    return files


def plan(rng: random.Random, folder: Path) -> None:
    recipe = rng.choice(PLANNED)
    models = {name: _model_files(rng, 0.15) for name in ("a", "b")}
    opened = {name: open_checkpoint(name, MemorySource(models[name])) for name in models}
    made = plan_merge(recipe, opened)
    for data in side_files(made).values():
        assert b"".join(pieces_of(data)) is not None
    model_card(made, made.outputs[0]).encode()


def masks(rng: random.Random, folder: Path) -> None:
    document, size = header_of({"rescale": ("F64", (2,)), "a": ("U8", (32,))})
    document["__metadata__"] = {"format": FORMAT, "experts": '["x", "y"]'}
    open_masks(MemorySource({MASKS_FILE: _file(spoiled_json(rng, document), size)}))


def manifest(rng: random.Random, folder: Path) -> None:
    store, document = _store(folder), fresh(MANIFEST)
    if rng.random() < 0.5:
        spoil(rng, document["files"])
        document["content_digest"] = _content_digest(document["files"])
        if rng.random() < 0.5:
            document["attempt"] = rng.choice(("..", ".", "", "a/b", "/", "é", "x" * 300, "a\0"))
        data = spoiled_json(rng, document) if rng.random() < 0.3 else json.dumps(document).encode()
    else:
        data = spoiled_json(rng, document)
    path = folder / "artifacts" / "model" / str(MANIFEST["digest"]) / "manifest.json"
    _write(path, data)
    artifact = store.get("model", str(MANIFEST["digest"]))
    assert artifact.nbytes >= 0
    repr(artifact)
    with artifact.source() as source:
        for file, nbytes in source.sizes().items():
            source.read_into(file, 0, memoryview(bytearray(min(nbytes, 4))))
    artifact.folder()


def _content_digest(files: Any) -> str:
    """The right digest of a wrong list, as far as there is one."""
    try:
        records = [FileRecord(each["path"], each["size"], each["blake3"]) for each in files]
        return content_digest(records)
    except (TypeError, KeyError, ValueError):
        return "0" * 64


def ref(rng: random.Random, folder: Path) -> None:
    store = _store(folder)
    _write(folder / "refs" / "model" / "e1.json", spoiled_json(rng, fresh(REF)))
    store.refs("model")
    found = store.ref("model", "e1")
    assert found is not None
    assert found.current.kind == found.kind
    store.resolve("model", "e1")


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


_stores: dict[Path, ArtifactStore] = {}


def _store(folder: Path) -> ArtifactStore:
    if folder not in _stores:
        _stores[folder] = ArtifactStore.open(folder.as_uri())
        _write(folder / "attempts" / MANIFEST["attempt"] / "config.json", b"{}")
    return _stores[folder]


def recipe(rng: random.Random, folder: Path) -> None:
    text = spoil_text(rng, rng.choice(RECIPES), YAML_PIECES)
    found = parse_recipe(text, "r", "r.yaml")
    for coefficient in found.coefficients()[:3]:
        coefficient.id.encode()
    for names in found.expert_sets(("x", "y", "z")):
        found.for_experts(names, "base")
    assert found.has_gradient in (True, False)
    assert all(isinstance(name, str) for name in found.referenced_models)


def models_file(rng: random.Random, folder: Path) -> None:
    _write(folder / "catalog" / "models.yaml", _spoiled_yaml(rng, MODELS_FILE))
    load_catalog(folder / "catalog")


def suite(rng: random.Random, folder: Path) -> None:
    items = [json.dumps(ITEM | {"id": str(number)}).encode() for number in range(3)]
    if rng.random() < 0.6:
        items[rng.randrange(3)] = spoiled_json(rng, fresh(ITEM))
    _write(folder / "suites" / "items.jsonl", b"\n".join(items))
    text = SUITE.encode() if rng.random() < 0.3 else _spoiled_yaml(rng, SUITE)
    _write(folder / "suites" / "s.yaml", text)
    load_suite(folder / "suites" / "s.yaml")


def _spoiled_yaml(rng: random.Random, text: str) -> bytes:
    return spoil_text(rng, text, YAML_PIECES).encode("utf-8", "surrogatepass")


def links(rng: random.Random, folder: Path) -> None:
    """A folder with links, pipes and odd names: no byte of beside it may come out."""
    root = folder / "links"
    for path in sorted(root.rglob("*"), reverse=True):
        path.unlink() if path.is_symlink() or not path.is_dir() else path.rmdir()
    _write(root / "private", PRIVATE)
    _write(root / "weights.safetensors", WEIGHTS)
    model = root / "model"
    for name, data in _model_files(rng, 0.05).items():
        _write(model / name, data)
    (model / "inner").mkdir()
    for _ in range(rng.randint(1, 4)):
        spoil_folder(rng, model)
    source = FolderSource(model)
    for name, size in source.sizes().items():
        data = read_file(source, name, 0, min(size, 1 << 16))
        assert PRIVATE not in data, name
    with suppress(ResourceError):
        FolderModel(model, root / "hashes").copy_to(_Nowhere())
    _use(open_checkpoint("m", source))


class _Nowhere:
    """A sink that forgets, and lets nothing private through."""

    def open(self, file: str, size: int) -> "_Nowhere":
        return self

    def write(self, data: memoryview) -> None:
        assert PRIVATE not in bytes(data)

    def __enter__(self) -> "_Nowhere":
        return self

    def __exit__(self, *error: object) -> None:
        return None


# Asked once here: the first time it lists every folder of packages, which no case may.
version("lm_eval")

Target = Callable[[random.Random, Path], None]
WEIGHTS = weights(MODEL)
ADAPTER_WEIGHTS = weights(ADAPTER)
BASE = open_checkpoint("b", MemorySource({"model.safetensors": WEIGHTS}))
PLANNED = tuple(
    parse_recipe(text, "r", "r.yaml")
    for text in (
        "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
        "chat_template: auto\n",
        "merge_method: linear\nmodels: [{model: a}, {model: b}]\nparameters: {weight: 1}\n"
        "tokenizer: {source: union, pad_to_multiple_of: 8}\n",
        "merge_method: passthrough\nslices:\n- sources: [{model: a, layer_range: [0, 2]}]\n"
        "- sources: [{model: b, layer_range: [0, 1]}]\n",
    )
)
SHARES: Mapping[str, tuple[Target, int]] = {
    "header": (header, 37), "index": (index, 21), "config": (config, 5), "adapter": (adapter, 8),
    "tokenizer": (tokenizer, 4), "masks": (masks, 2), "plan": (plan, 1), "manifest": (manifest, 8),
    "ref": (ref, 3), "recipe": (recipe, 1), "links": (links, 6), "models_file": (models_file, 2),
    "suite": (suite, 2),
}  # fmt: skip
"""Each target, and how many of a hundred cases are its."""
