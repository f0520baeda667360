"""Folders that hold the state of a training and no model, and the command that converts it."""

from __future__ import annotations

import re
from collections.abc import Collection

from merge_ops.checkpoints.files.file_names import of_training, ranks_of, top_level
from merge_ops.checkpoints.layout import natural_key

_STEP = re.compile(r"(checkpoint-\d+|epoch[-_]\d+|step[-_]\d+)/[^/]+")
_SHOWN = 5


def training_state(files: Collection[str], location: str) -> str | None:
    """Return what kind of training state a folder without weights is, and the way out of it.

    It is None where nothing speaks for one. `files` are all files below `location`.
    """
    if any(file.endswith("_model_states.pt") for file in files) or "zero_to_fp32.py" in files:
        return (
            "is a training state of DeepSpeed (ZeRO), whose weights are cut among its ranks; write"
            f" them as one with `python zero_to_fp32.py {location} OUT --safe_serialization` (the"
            " script that DeepSpeed left in the folder) and copy config.json and the tokenizer"
            " beside them"
        )
    parts = sorted({_above(file) for file in files if file.endswith(".distcp")})
    if parts:
        folder = f"{location}/{parts[0]}".rstrip("/")
        return (
            "is a training state of PyTorch (a distributed checkpoint, as FSDP writes it:"
            " *.distcp); write it as one file with `python -m torch.distributed.checkpoint."
            f"format_utils dcp_to_torch {folder} pytorch_model.bin` (or, of accelerate,"
            f" `accelerate merge-weights {folder} OUT`) and put config.json and the tokenizer"
            " beside it"
        )
    if any(re.search(r"(^|/)mp_rank_\d+(_\d+)*/model_optim_rng\.pt$", file) for file in files):
        return (
            "is a training state of Megatron, whose weights are cut among its ranks; convert it"
            " with Megatron's own tools/checkpoint/convert.py (saver: hf)"
        )
    steps = sorted({file.split("/")[0] for file in files if _STEP.match(file)}, key=natural_key)
    if steps:
        shown = ", ".join(steps[-_SHOWN:]) + (", and earlier ones" if steps[_SHOWN:] else "")
        return (
            f"is the folder of a training, with checkpoints in sub-folders ({shown}) and no weights"
            f" of its own; name one of them, such as {location}/{steps[-1]}"
        )
    ranks = ranks_of(top_level(files))
    if len(ranks) > 1:
        return (
            f"holds {len(ranks)} slices of a model in Meta's layout ({ranks[0]} …), each a part of"
            " every matrix; take the Hugging Face version of the model, or convert it with"
            " transformers' convert_llama_weights_to_hf.py"
        )
    if any(of_training(file) for file in top_level(files)) and not _has_pickle(files):
        return (
            "holds the state of a training (optimizer, scheduler or random numbers) and no weights"
            " of a model; save the model with `save_pretrained`, or name the folder that has it"
        )
    return None


def _has_pickle(files: Collection[str]) -> bool:
    return any(
        file.endswith((".bin", ".pt", ".pth", ".ckpt")) and not of_training(file)
        for file in top_level(files)
    )


def _above(file: str) -> str:
    return file.rpartition("/")[0]
