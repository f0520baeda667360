"""What the names of a folder's files say: sets of weights, their shards, what is no weight."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
ADAPTER, ADAPTER_PICKLE = "adapter_model.safetensors", "adapter_model.bin"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_FILES = (ADAPTER, ADAPTER_PICKLE, "pytorch_lora_weights.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
FOREIGN: Mapping[str, str] = {
    ".h5": "TensorFlow", ".msgpack": "Flax", ".onnx": "ONNX", ".npz": "NumPy or old MLX",
    ".tflite": "TensorFlow Lite", ".mlmodel": "Core ML", ".nemo": "a NeMo archive",
    ".ot": "Rust", ".pdparams": "Paddle", ".engine": "TensorRT", ".zip": "an archive",
    ".tar": "an archive", ".gz": "an archive",
}  # fmt: skip
WEIGHTS = (".safetensors", *PICKLES, ".gguf", ".distcp", *FOREIGN)
UNFINISHED = (".incomplete", ".aria2", ".part", ".partial", ".crdownload", ".download", ".tmp")
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d+)-of-(?P<count>\d+)\.(?P<kind>safetensors|bin)")
_INDEX = re.compile(r".+\.safetensors\.index(\.[\w-]+)?\.json")
_TRAINING = re.compile(
    r"(training_args|optimizer(_\d+)?|scheduler|scaler|random_states_\d+|rng_state(_\d+)?"
    r"|sampler|dl_state_dict|custom_checkpoint_\d+|trainer_state|iter_num|loss)"
    r"\.(bin|pt|pth|pkl|safetensors)"
)
_RANK = re.compile(r"consolidated\.(\d+)\.pth")


def top_level(files: Iterable[str]) -> list[str]:
    """Return the files that lie in no sub-folder."""
    return [file for file in files if "/" not in file]


def is_index(file: str) -> bool:
    """Return whether a file is the index of safetensors shards."""
    return _INDEX.fullmatch(file) is not None


def shard_of(file: str) -> tuple[str, int, int] | None:
    """Return (stem, number, count) of a shard's name, or None for other names."""
    found = _SHARD.fullmatch(file)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def of_training(file: str) -> bool:
    """Return whether a file holds the state of a training and no weights of the model."""
    return _TRAINING.fullmatch(file.rsplit("/", 1)[-1]) is not None


def ranks_of(files: Iterable[str]) -> list[str]:
    """Return the files of Meta's layout, one for each rank of tensor parallelism."""
    return sorted(file for file in files if _RANK.fullmatch(file))


def is_consolidated(file: str) -> bool:
    """Return whether a file has Mistral's or Meta's layout, beside which others may lie."""
    return file.startswith("consolidated")


def plain_name(file: str) -> str | None:
    """Return the name of a variant without its variant, or None where it is none.

    `model.fp16.safetensors` is a variant of `model.safetensors`, and so is
    `model.fp16-00001-of-00002.safetensors` or `model.safetensors.index.fp16.json` of its plain one.
    """
    index = re.fullmatch(r"(.+\.safetensors\.index)\.[\w-]+(\.json)", file)
    if index:
        return index[1] + index[2]
    one = re.fullmatch(r"(.+?)\.(?:fp16|bf16|fp32|fp8|non_ema|ema)(-\d+-of-\d+)?(\.\w+)", file)
    return f"{one[1]}{one[2] or ''}{one[3]}" if one else None


def loose_pickles(files: Collection[str]) -> list[str]:
    """Return the pickles of a folder that may hold weights, without those of a training."""
    return sorted(
        file for file in top_level(files) if file.endswith(PICKLES) and not of_training(file)
    )


def reason_to_pass_over(file: str, chosen: Collection[str]) -> str | None:
    """Return why a file that is not among the `chosen` weights is not read.

    It is None where nothing is known that would make leaving it out a matter of course.
    """
    if of_training(file):
        return "the state of a training, and no weights"
    if file.endswith(UNFINISHED):
        return "what a broken download left"
    if is_consolidated(file) and not any(map(is_consolidated, chosen)):
        return "the same model in Mistral's or Meta's layout"
    plain = plain_name(file)
    if plain is not None and (plain in chosen or _same_stem(plain, chosen)):
        return "a variant in another dtype; loaders take the plain one unless they are asked"
    if file.endswith((*PICKLES, ".bin.index.json")) and any(
        each.endswith(".safetensors") for each in chosen
    ):
        return "pickled; the safetensors files are taken, as transformers does"
    if file.endswith(".gguf"):
        return "quantized, for llama.cpp"
    for suffix, what in FOREIGN.items():
        if file.endswith(suffix):
            return f"weights of another program ({what})"
    return None


def _same_stem(plain: str, chosen: Collection[str]) -> bool:
    """Whether the chosen ones are shards, or the whole, of what `plain` names."""
    mine = _stem(plain)
    return any(_stem(each) == mine for each in chosen)


def _stem(file: str) -> str:
    shard = shard_of(file)
    return shard[0] if shard else file.split(".safetensors")[0].removesuffix(".bin")
