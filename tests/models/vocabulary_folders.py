"""Folders that say their vocabulary in every form that there is, over an embedding of some rows."""

import base64
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.utils import sentencepiece_model_pb2_new

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint

EMBEDDING = "model.embed_tokens.weight"
WORDS = ("<unk>", "<s>", "</s>", "a", "b", "c", "d", "茯苓")


def sentencepiece(words=WORDS):
    """A SentencePiece model, written by Google's own messages."""
    proto = sentencepiece_model_pb2_new.ModelProto()
    proto.trainer_spec.model_type = proto.trainer_spec.BPE
    proto.trainer_spec.vocab_size = len(words)
    proto.normalizer_spec.name = "identity"
    for number, word in enumerate(words):
        kind = {0: "UNKNOWN", 1: "CONTROL", 2: "CONTROL"}.get(number, "NORMAL")
        proto.pieces.add(piece=word, score=-float(number), type=getattr(proto.SentencePiece, kind))
    return proto.SerializeToString()


def tiktoken(words=WORDS):
    lines = [f"{encoded(word)} {rank}" for rank, word in enumerate(words)]
    return ("\n".join(lines) + "\n").encode()


def tekken(words=WORDS):
    """The first three words are special tokens."""
    special = [{"rank": n, "token_str": word, "is_control": True} for n, word in enumerate(words)]
    plain = [
        {"rank": n, "token_bytes": encoded(word), "token_str": word}
        for n, word in enumerate(words[3:])
    ]
    config = {"default_num_special_tokens": 3, "default_vocab_size": len(words)}
    return {"config": config, "vocab": plain, "special_tokens": special[:3]}


def tokenizer_json(words=WORDS):
    rows = {word: row for row, word in enumerate(words)}
    return {"model": {"type": "BPE", "vocab": rows, "merges": []}, "added_tokens": []}


def vocab_json(words=WORDS):
    return {word: row for row, word in enumerate(words)}


def vocab_txt(words=WORDS):
    return "".join(f"{word}\n" for word in words).encode()


def encoded(word):
    return base64.b64encode(word.encode()).decode()


FORMS = {
    "tokenizer.json": tokenizer_json,
    "vocab.json": vocab_json,
    "vocab.txt": vocab_txt,
    "tokenizer.model": sentencepiece,
    "spiece.model": sentencepiece,
    "sentencepiece.bpe.model": sentencepiece,
    "ice_text.model": sentencepiece,
    "qwen.tiktoken": tiktoken,
    "tiktoken.model": tiktoken,
    "tekken.json": tekken,
}


def put(folder: Path, files) -> Path:
    """Write files: bytes as they are, anything else as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        path.write_bytes(data)
    return folder


def model(folder: Path, files, rows=8, config=None) -> Checkpoint:
    """A model that is an embedding of `rows` rows, with these files beside it; opened."""
    put(folder, {"config.json": config or {"model_type": "toy", "vocab_size": rows}, **files})
    save_file({EMBEDDING: torch.ones(rows, 2)}, folder / "model.safetensors")
    return open_checkpoint(folder.name, FolderSource(folder))
