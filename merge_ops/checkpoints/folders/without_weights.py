"""What a folder is that has no weights which could be read, and the way on from there."""

from __future__ import annotations

from collections.abc import Mapping

from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.files.file_names import (
    ADAPTER_CONFIG,
    ADAPTER_FILES,
    FOREIGN,
    INDEX,
    SINGLE,
    top_level,
)
from merge_ops.checkpoints.folders.training_states import training_state
from merge_ops.checkpoints.folders.unready_files import unfinished

_SHOWN = 5
_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt")


def without_weights(source: ByteSource, files: Mapping[str, int]) -> tuple[str, str]:
    """Return the kind of a folder without weights of its own, and its fault as a sentence."""
    at, here = source.location, top_level(files)
    if "model_index.json" in here:
        parts = parts_with_weights(files)
        shown = ", ".join(f"{each}/" for each in parts) or "none of them is there"
        example = f", such as {at}/{parts[0]}" if parts else ""
        return "diffusers_pipeline", (
            f"{at} is a diffusers pipeline (model_index.json), whose parts are models of their own"
            f" ({shown}); name the part that is to be merged{example}"
        )
    state = training_state(files, at)
    if state is not None:
        return "training_state", f"{at} {state}"
    wrapped = _wrapped(at, files)
    if wrapped is not None:
        return "wrapped", wrapped
    left = unfinished(source, files)
    if left:
        more = f" and {len(left) - 1} more" * (len(left) > 1)
        return "incomplete", (
            f"{at} holds no .safetensors file: its download broke off ({left[0]}{more}); download"
            " it again"
        )
    return _other(at, here)


def _other(at: str, here: list[str]) -> tuple[str, str]:
    if ADAPTER_CONFIG in here and not any(each in here for each in ADAPTER_FILES):
        return "adapter", (
            f"{at} is a LoRA adapter without its weights ({ADAPTER_FILES[0]}), which is no model"
            " without its base; download it again and name both, as 'base+adapter'"
        )
    quantized = [file for file in here if file.endswith(".gguf")]
    if quantized:
        return "quantized", (
            f"{at} holds quantized weights ({quantized[0]}); merge the unquantized safetensors"
            " checkpoint and quantize the result"
        )
    for file in here:
        for suffix, program in FOREIGN.items():
            if file.endswith(suffix):
                return "foreign", (
                    f"{at} holds weights of another program ({file}: {program}) and no .safetensors"
                    " file; take the PyTorch version of the model, or convert it by loading it with"
                    " transformers and saving it again"
                )
    return "no_weights", (
        f"{at} holds no .safetensors file; {SINGLE} or shards with {INDEX} are expected"
    )


def _wrapped(at: str, files: Mapping[str, int]) -> str | None:
    """The fault of a folder whose sub-folders are models; None where none is."""
    inside = {file.rpartition("/")[0] for file in files if "/" in file and _is_weights(file)}
    if not inside:
        return None
    snapshots = sorted(each for each in inside if each.startswith("snapshots/"))
    if snapshots:
        return (
            f"{at} is the Hugging Face cache of a model, with its files in sub-folders by revision;"
            f" name one of them, such as {at}/{snapshots[-1]}"
        )
    shown = ", ".join(f"{each}/" for each in sorted(inside)[:_SHOWN])
    return (
        f"{at} has no weights of its own, and holds no .safetensors file but in sub-folders"
        f" ({shown}); name the one that is meant, such as {at}/{min(inside)}"
    )


def _is_weights(file: str) -> bool:
    return file.endswith(_WEIGHTS) and not file.startswith("blobs/")


def parts_with_weights(files: Mapping[str, int]) -> list[str]:
    """Return the sub-folders of a pipeline that hold weights."""
    return sorted(
        {
            file.split("/")[0]
            for file in files
            if file.count("/") == 1 and file.endswith((".safetensors", ".bin"))
        }
    )
