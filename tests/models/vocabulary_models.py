"""Models with vocabularies of a few words, and merges of them in this process."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.jobs.assembly import merge
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream.stream import StreamSettings
from tests.models import checkpoint_factory as factory

EMBEDDING = "model.embed_tokens.weight"
ARITHMETIC = """
merge_method: task_arithmetic
base_model: base
models: [{model: one}, {model: two, parameters: {weight: 0.5}}]
parameters: {weight: 1}
"""
UNION = ARITHMETIC + "tokenizer: {source: union}\n"


def model_of_words(folder: Path, rows: dict[str, list[float]], padding: int = 0) -> Path:
    """A checkpoint that is nothing but an embedding, with one row for each word."""
    folder.mkdir()
    tokenizer = Tokenizer(WordLevel({word: row for row, word in enumerate(rows)}, unk_token="a"))
    tokenizer.save(str(folder / "tokenizer.json"))
    width = len(next(iter(rows.values())))
    table = torch.tensor([*rows.values(), *[[9.0] * width] * padding], dtype=torch.float32)
    save_file({EMBEDDING: table}, folder / "model.safetensors")
    factory.write_json(folder / "config.json", {"vocab_size": len(table), "model_type": "toy"})
    return folder


def opened(folders):
    return {n: open_checkpoint(n, FolderSource(f), f"digest of {n}") for n, f in folders.items()}


def plan(text, folders):
    return plan_merge(parse_recipe(text, "study", "study.yaml"), opened(folders))


def merged(text, folders, out, settings=None):
    settings = settings or StreamSettings(threads=1, device="cpu")
    merge(plan(text, folders), {"default": FolderSink(out)}, settings)
    return out
