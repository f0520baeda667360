"""Is a checkpoint quantized? Told from its config, the files beside it, and its tensors.

Codes of quantized weights are no numbers that can be averaged: the code 7 of one model stands under
another scale than the code 7 of the next. Quantizers write what they did under many names and in
many places, and some write nothing at all; then the tensors tell.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.header import FLOAT_DTYPES, TensorEntry
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.errors import Fault

# Keys of a config that hold what the quantizer did: transformers', MLX's, old compressed-tensors'.
CONFIG_KEYS = ("quantization_config", "quantization", "compression_config")
# ChatGLM's codes say the number of bits, and 0 where nothing is quantized.
BIT_KEYS = ("quantization_bit", "quantization_bits")
SIDE_FILES = {
    "quantize_config.json": "GPTQ",
    "quant_config.json": "AWQ",
    "hf_quant_config.json": "ModelOpt",
    "quant_model_description.json": "ModelSlim",
}
PLAIN_WORDS = frozenset({"", "none", "null", "no", "false", "bf16", "bfloat16", "fp16", "float16"})
# Config objects are searched to this depth: text_config, vision_config, thinker_config.text_config.
CONFIG_DEPTH = 3

# The last part of the names of packed codes, which are whole numbers, and of what goes with them.
CODES = {
    "qweight": "GPTQ or AWQ",
    "qzeros": "GPTQ or AWQ",
    "g_idx": "GPTQ",
    "weight_packed": "compressed-tensors",
    "W_q": "HQQ",
    "Qidxs": "QuIP#",
    "q_weight": "EXL2",
    "q_invperm": "EXL2",
    "trellis": "EXL3",
    "qdata": "torchao",
    "_weight_qdata": "torchao",
}
BESIDE_CODES = {
    "SCB": "bitsandbytes, 8 bits",
    "absmax": "bitsandbytes, 4 bits",
    "quant_map": "bitsandbytes, 4 bits",
    "nested_absmax": "bitsandbytes, 4 bits",
    "nested_quant_map": "bitsandbytes, 4 bits",
    "weight_scale_inv": "FP8",
}
BITSANDBYTES_STATE = ".quant_state."
MXFP4 = ("_blocks", "_scales")
_BESIDE_CODES = tuple(BESIDE_CODES)
_PLAIN = FLOAT_DTYPES | {"BOOL", "C64"}
# Last parts of the names of scales. `logit_scale` and `layer_scale` are parameters of sound models.
SCALES = frozenset(
    {
        "scale", "scales", "_scale", "_scales", "weight_scale", "weight_scales", "qscale",
        "qscales", "wscales", "zero", "zeros", "zero_point", "zero_points", "weight_zero_point",
        "biases",
    }
)  # fmt: skip
WEIGHTS = ("weight", "_proj", "kernel", "qkv", "embedding")

# How the float weights are had back, where there is a usual way.
WAYS_BACK = {
    "mlx": "`mlx_lm.convert --dequantize` makes one where it is lost",
    "bitsandbytes": "`model.dequantize()` of transformers makes one where it is lost",
    "fp8": "loading with `FineGrainedFP8Config(dequantize=True)` and saving makes one",
    "mxfp4": "loading with `Mxfp4Config(dequantize=True)` and saving makes one",
    "compressed-tensors": "loading with `CompressedTensorsConfig(run_compressed=False)` and saving"
    " makes one where it is lost",
    "hqq": "`HQQLinear.dequantize` makes one where it is lost",
}


def quantization_of(checkpoint: Checkpoint) -> str | None:
    """Return how a checkpoint is quantized, in words, or None where its weights are plain numbers.

    Configs are searched at the top and in their parts, then the quantizers' own files, then the
    names and dtypes of tensors. Nothing but headers and small files is read.
    """
    said = _said_by_config(checkpoint.config) or _said_by_files(checkpoint)
    return said or _told_by_tensors(checkpoint)


def quantization_fault(checkpoint: Checkpoint) -> Fault | None:
    """Return the fault that a checkpoint is quantized, with the way on, or None."""
    kind = quantization_of(checkpoint)
    if kind is None:
        return None
    advice = "merge the unquantized checkpoint and quantize the result"
    way = next((way for key, way in WAYS_BACK.items() if key in kind.lower()), None)
    if way:
        advice += f"; {way}"
    if kind.endswith("shows"):
        advice += ". Integer tensors that differ between models cannot be averaged"
    elif _told_by_tensors(checkpoint) is None:
        place = "its config.json" if _said_by_config(checkpoint.config) else "a file beside it"
        advice += (
            f". It is {place} that says so, and the tensors are plain numbers: where they are the"
            " unquantized weights, take that entry or file away"
        )
    return Fault(checkpoint.name, f"is quantized ({kind}); {advice}")


def _said_by_config(config: Mapping[str, Any], depth: int = CONFIG_DEPTH) -> str | None:
    for key in CONFIG_KEYS:
        kind = _kind_said(config.get(key), "MLX" if key == "quantization" else "of unnamed kind")
        if kind:
            return kind
    for key in BIT_KEYS:
        bits = config.get(key)
        if isinstance(bits, int) and not isinstance(bits, bool) and 0 < bits < 16:
            return f"{bits} bits"
    if depth:
        for value in config.values():
            if isinstance(value, dict):
                kind = _said_by_config(cast(dict[str, Any], value), depth - 1)
                if kind:
                    return kind
    return None


def _kind_said(said: object, otherwise: str) -> str | None:
    """What one entry of a config says; an empty one says nothing."""
    if isinstance(said, str):
        return None if said.lower() in PLAIN_WORDS else said
    if not isinstance(said, dict) or not said:
        return otherwise if said is True else None
    stated = cast(dict[str, Any], said)
    if stated.get("quantization_mode") == "online":  # BitNet's master weights, in bfloat16
        return None
    for key in ("quant_method", "quant_algo", "quant_type", "format", "method"):
        word = stated.get(key)
        if isinstance(word, str) and word:
            return word
    if "quant_algo" in stated and not stated.get("kv_cache_quant_algo"):
        return None  # ModelOpt names the algorithm, null where there is none
    bits = stated.get("bits", stated.get("w_bit"))
    return f"{otherwise}, {bits} bits" if isinstance(bits, int) else otherwise


def _said_by_files(checkpoint: Checkpoint) -> str | None:
    for file, quantizer in SIDE_FILES.items():
        if file not in checkpoint.files:
            continue
        content = checkpoint.json_files.read(file)
        inner: object = content.get("quantization", content)
        kind = _kind_said(inner, quantizer)
        if kind:
            return f"{kind}, says {file}"
    return None


def _told_by_tensors(checkpoint: Checkpoint) -> str | None:
    return next(_signs(checkpoint), None)


def _signs(checkpoint: Checkpoint) -> Iterator[str]:
    """Each sign of quantization among the tensors, the plainest first."""
    tensors = checkpoint.tensors
    codes: list[str] = []
    looked: Iterable[tuple[str, TensorEntry]] = tensors.items()
    if _PLAIN.issuperset(entry.dtype for entry in tensors.values()):  # names alone can tell
        looked = [
            each
            for each in looked
            if each[0].endswith(_BESIDE_CODES) or BITSANDBYTES_STATE in each[0]
        ]
    for name, entry in looked:
        kind = _kind_named(name, entry, tensors)
        if kind:
            yield f"{kind}, as '{name}' shows"
        elif _are_codes(entry) and len(entry.shape) > 1 and not is_buffer(name, entry):
            codes.append(name)
    if not codes:
        return
    parts = (name.rpartition(".") for name in tensors)
    with_scales = {parent for parent, _, last in parts if last in SCALES}
    for name in codes:
        dtype, (parent, _, last) = tensors[name].dtype, name.rpartition(".")
        beside = (f"{name}_scale", f"{name}_scales")
        if parent in with_scales or name in with_scales or any(map(tensors.__contains__, beside)):
            packer = "MLX: " if dtype == "U32" and f"{parent}.biases" in tensors else ""
            yield f"{packer}{dtype} weights with scales, as '{name}' shows"
        elif last.endswith(WEIGHTS):
            yield f"{dtype} weights, as '{name}' shows"


def _kind_named(name: str, entry: TensorEntry, tensors: Mapping[str, TensorEntry]) -> str | None:
    """The quantizer that a tensor's name or dtype tells by itself."""
    last = name.rpartition(".")[2]
    if entry.dtype.startswith("F8"):
        return "FP8"
    if last in BESIDE_CODES:
        return BESIDE_CODES[last]
    if BITSANDBYTES_STATE in name:
        return "bitsandbytes, 4 bits"
    if not _are_codes(entry):
        return None
    blocks, scales = MXFP4
    if last.endswith(blocks) and name.removesuffix(blocks) + scales in tensors:
        return "MXFP4"
    return CODES.get(last)


def _are_codes(entry: TensorEntry) -> bool:
    """Whether a tensor holds whole numbers."""
    return entry.dtype not in _PLAIN
