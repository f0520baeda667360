"""The tokenizer files of a merged checkpoint: the donor's as they are, or true to new tokens."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, cast

import blake3

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.files.strict_json import parse_json_object
from merge_ops.vocabularies.chat_templates import TEMPLATE_FILE
from merge_ops.vocabularies.tokenizers import CONFIG_FILE, TOKENIZER_FILE, Tokenizer

PATTERNS = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.*", "merges.txt",
    "*.model", "*.spm", "*.tiktoken", "*.bpe", "*.codes", "*.vocab", "tekken.json",
    "normalizer.json", "chat_template*",
)  # fmt: skip
# Templates for tools and the like, which speak of the tokenizer's tokens.
TEMPLATE_FOLDER = "additional_chat_templates"
# What says nothing of the vocabulary itself, and so stays when tokens are added.
STAY = (CONFIG_FILE, "special_tokens_map.json", TEMPLATE_FILE, "chat_template.json")


def is_tokenizer_file(name: str) -> bool:
    """Return whether a file beside the weights belongs to the tokenizer."""
    path = PurePosixPath(name)
    if path.parts[0] == TEMPLATE_FOLDER:
        return len(path.parts) == 2 and path.suffix == ".jinja"
    of_code = path.suffix == ".py" or len(path.parts) > 1
    return not of_code and any(path.match(pattern) for pattern in PATTERNS)


def tokenizer_files(
    donor: Checkpoint, tokenizer: Tokenizer | None, template: str | None
) -> dict[str, bytes]:
    """Return the donor's tokenizer files by name, with the changes asked for.

    With `tokenizer` they have its tokens, with `template` they have that chat template. Other forms
    of a changed vocabulary (tokenizer.model, vocab.json, …) would contradict tokenizer.json and are
    left out.
    """
    files = {
        name: read_file(donor.source, name, 0, size)
        for name, size in donor.files.items()
        if is_tokenizer_file(name)
    }
    config = _config(donor, files)
    if tokenizer is not None:
        files = {
            name: data
            for name, data in files.items()
            if name in STAY or name.startswith(TEMPLATE_FOLDER)
        }
        files[TOKENIZER_FILE] = tokenizer.rewritten()
        if "added_tokens_decoder" in config:
            config["added_tokens_decoder"] = _decoder(tokenizer)
            files[CONFIG_FILE] = _bytes(config)
    if template is not None:
        files = {name: data for name, data in files.items() if not name.startswith("chat_template")}
        files[TEMPLATE_FILE] = template.encode()
        if config.pop("chat_template", None) is not None:
            files[CONFIG_FILE] = _bytes(config)
    return dict(sorted(files.items()))


def files_digest(files: Mapping[str, bytes]) -> str:
    """Return a digest that covers the names and the content."""
    hasher = blake3.blake3()
    for name, data in files.items():
        hasher.update(f"{name}\0{len(data)}\0".encode() + data)
    return hasher.hexdigest()


def _config(donor: Checkpoint, files: Mapping[str, bytes]) -> dict[str, Any]:
    where = f"{donor.source.location}/{CONFIG_FILE}"
    return parse_json_object(where, files.get(CONFIG_FILE, b"{}"))


def _decoder(tokenizer: Tokenizer) -> dict[str, Any]:
    entries = sorted(tokenizer.added.values(), key=lambda entry: entry["id"])
    return {
        str(entry["id"]): {name: value for name, value in entry.items() if name != "id"}
        for entry in entries
    }


def _bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def renumbered(
    config: Mapping[str, Any], before: Mapping[str, int], after: Mapping[str, int]
) -> dict[str, Any]:
    """Return a config with its token ids (`eos_token_id`, …) in another vocabulary.

    The ids were those of `before` and become those of `after`. An id without a token, or with one
    that is gone, stays as it was.
    """
    tokens = {number: token for token, number in before.items()}

    def moved(value: Any) -> Any:
        if isinstance(value, list):
            return [moved(each) for each in cast(Sequence[Any], value)]
        return after.get(tokens.get(value, ""), value) if type(value) is int else value

    changed = {
        key: moved(value) if key.endswith("_token_id") else value for key, value in config.items()
    }
    text = config.get("text_config")
    if isinstance(text, dict):
        changed["text_config"] = renumbered(cast(dict[str, Any], text), before, after)
    return changed
