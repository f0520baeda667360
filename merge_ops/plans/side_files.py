"""The files beside the weights of a planned checkpoint: its config, and what the base model has."""

from __future__ import annotations

import json
from pathlib import PurePosixPath

from merge_ops.checkpoints.byte_sources import read_file
from merge_ops.plans.plan import Plan

# What a checkpoint needs beside its weights and its config; taken from the base model.
SIDE_FILES = (
    "generation_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt", "*.model", "*.tiktoken", "chat_template*", "preprocessor_config.json",
    "processor_config.json", "*.py", "LICENSE*",
)  # fmt: skip


def side_files(plan: Plan) -> dict[str, bytes]:
    """Return the files beside the weights, as {name: bytes}.

    These are the output's config, and what the base has beside its weights: generation config,
    tokenizer, code, licence.
    """
    base = plan.base
    files: dict[str, bytes] = {}
    if base.config:
        files["config.json"] = _json_bytes(plan.config)
    for name, size in base.files.items():
        path = PurePosixPath(name)
        if len(path.parts) == 1 and any(path.match(pattern) for pattern in SIDE_FILES):
            files[name] = read_file(base.source, name, 0, size)
    return plan.tokenizer.beside(files) if plan.tokenizer else files


def _json_bytes(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()
