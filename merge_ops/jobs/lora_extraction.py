"""A LoRA adapter from a fine-tuned model: the truncated SVD of each matrix of its task vector.

Eckart & Young 1936: of all matrices of rank r, U_r S_r V_r^T is nearest to the task vector
Δ = U S V^T, with ‖Δ − B A‖² = Σ_{i>r} s_i². By default B = U_r √S_r and A = √S_r V_r^T, otherwise
B = U_r and A = S_r V_r^T, as in mergekit-extract-lora (https://github.com/arcee-ai/mergekit); alpha
is the rank, so that the scale is 1.

What has no low rank is kept whole where it differs: biases of decomposed layers beside their
factors (`bias: lora_only`), embeddings, heads and norms as `modules_to_save`. Unlike mergekit what
does not differ is left out of the adapter, factors are float32 whatever the checkpoints hold, and
what a regular expression leaves out is named in the report. Memory: one matrix and its SVD.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import ByteSink
from merge_ops.checkpoints.layout import OutputTensor, lay_out
from merge_ops.checkpoints.names.tie_names import HEAD
from merge_ops.checkpoints.names.ties import head_is_embedding
from merge_ops.errors import CompatibilityError, Fault, NonFiniteError
from merge_ops.jobs.adapter_card import extraction_card
from merge_ops.jobs.extraction_plan import BLOCK, Extraction, known_source
from merge_ops.progress import Progress
from merge_ops.sources.lora.adapter_config import FILE as CONFIG_FILE
from merge_ops.sources.lora.adapters import PREFIX, WEIGHTS_FILE
from merge_ops.stream.block_reader import read_values
from merge_ops.stream.rounding import torch_dtype

if TYPE_CHECKING:
    from torch import Tensor

REPORT_FILE = "extraction.json"


@dataclass(frozen=True)
class MatrixError:
    """A matrix error says how near the low-rank product comes to one matrix.

    It holds the rank, ‖Δ‖ and ‖Δ − B A‖ / ‖Δ‖ (Frobenius norms).
    """

    name: str
    rank: int
    norm: float
    relative_error: float


@dataclass(frozen=True)
class ExtractionReport:
    """An extraction report holds the error of each matrix and the error over all of them.

    It also names the tensors that were kept whole and those that were left out, and the digests of
    the base and of the tuned model, where they are known.
    """

    matrices: tuple[MatrixError, ...]
    whole: tuple[str, ...]
    left_out: tuple[str, ...]
    relative_error: float = field(default=0.0)
    digests: Mapping[str, str | None] = field(default_factory=dict[str, "str | None"])

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return dataclasses.asdict(self)


def extract(plan: Extraction, sink: ByteSink, progress: Progress | None = None) -> ExtractionReport:
    """Decompose each matrix, write a PEFT folder with a report beside it, return the report."""
    (shard,) = lay_out(list(_outputs(plan)), shard_bytes=1 << 62)
    errors: list[MatrixError] = []
    pending: dict[str, Tensor] = {}
    keys = {key: name for name, key in plan.whole.items()}
    with sink.open(WEIGHTS_FILE, shard.size) as file:
        file.write(shard.header)
        for tensor in shard.tensors:
            if tensor.name in keys:
                for block in _raw_blocks(plan.tuned, keys[tensor.name]):
                    file.write(block)
                continue
            if tensor.name not in pending:
                module = tensor.name.removeprefix(PREFIX).rpartition(".lora_")[0]
                down, up, error = _decompose(plan, module)
                pending = {_key(module, "A"): down, _key(module, "B"): up}
                errors.append(error)
                if progress:
                    progress(len(errors), len(plan.ranks))
            file.write(_bytes(pending.pop(tensor.name)))
    whole = math.sqrt(math.fsum(each.norm**2 for each in errors))
    missed = math.sqrt(math.fsum((each.norm * each.relative_error) ** 2 for each in errors))
    error = missed / whole
    digests = {"base": plan.base.digest, "tuned": plan.tuned.digest}
    report = ExtractionReport(tuple(errors), tuple(plan.whole), plan.left_out, error, digests)
    files = {
        name: (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        for name, content in ((CONFIG_FILE, adapter_config(plan)), (REPORT_FILE, report.to_json()))
    }
    files["README.md"] = extraction_card(plan).encode()
    for name, data in files.items():
        with sink.open(name, len(data)) as file:
            file.write(data)
    return report


def adapter_config(plan: Extraction) -> dict[str, Any]:
    """Return the adapter_config.json of an extraction.

    Modules are named in full, so that nothing else matches.
    """
    rank = max(plan.ranks.values())
    smaller = {module: each for module, each in plan.ranks.items() if each != rank}
    biases = any(key.endswith(".base_layer.bias") for key in plan.whole.values())
    return {
        "base_model_name_or_path": plan.base.name,
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "use_rslora": False,
        "fan_in_fan_out": False,
        "lora_dropout": 0.0,
        "bias": "lora_only" if biases else "none",
        "ensure_weight_tying": HEAD in plan.whole and head_is_embedding(plan.tuned),
        "target_modules": list(plan.ranks),
        "modules_to_save": list(plan.saved_modules) or None,
    }


def _key(module: str, factor: str) -> str:
    return f"{PREFIX}{module}.lora_{factor}.weight"


def _outputs(plan: Extraction) -> Iterator[OutputTensor]:
    for module, rank in plan.ranks.items():
        rows, columns = known_source(plan.base, f"{module}.weight").shape
        yield OutputTensor(_key(module, "A"), "F32", (rank, columns))
        yield OutputTensor(_key(module, "B"), "F32", (rows, rank))
    for name, key in plan.whole.items():
        source = known_source(plan.tuned, name)
        yield OutputTensor(key, source.dtype, source.shape)


def _decompose(plan: Extraction, module: str) -> tuple[Tensor, Tensor, MatrixError]:
    """A [r, in], B [out, r] and the error of one matrix."""
    import torch

    name, rank = f"{module}.weight", plan.ranks[module]
    before, after = known_source(plan.base, name), known_source(plan.tuned, name)
    whole = math.prod(before.shape)
    delta = read_values(after, 0, whole).sub_(read_values(before, 0, whole)).view(before.shape)
    if not bool(delta.isfinite().all()):
        problem = "holds NaN or infinity, in one model or in both"
        raise CompatibilityError(plan.tuned.name, [Fault(f"'{name}'", problem)])
    svd: Callable[..., tuple[Tensor, Tensor, Tensor]] = cast(Any, torch.linalg).svd
    left, values, right = svd(delta, full_matrices=False)
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    if plan.settings.distribute_scale:
        root = values.sqrt()
        up, down = left * root, root[:, None] * right
    else:
        up, down = left, values[:, None] * right
    norm, missed = _norm(delta), _norm(delta - up @ down)
    if not (math.isfinite(norm) and math.isfinite(missed) and norm > 0):
        raise NonFiniteError(
            f"model '{plan.tuned.name}': the change of '{name}' is too large or too small for"
            " float32, in which it is decomposed; leave it out with --exclude. Nothing was written"
        )
    return down, up, MatrixError(name, rank, norm, missed / norm)


def _norm(values: Tensor) -> float:
    import torch

    return math.sqrt(float(values.square().sum(dtype=torch.float64)))


def _raw_blocks(checkpoint: Checkpoint, name: str) -> Iterator[memoryview]:
    source = known_source(checkpoint, name)
    whole = math.prod(source.shape)
    for start in range(0, whole, BLOCK):
        values = read_values(source, start, min(BLOCK, whole - start))
        if not bool(values.isfinite().all()):
            raise NonFiniteError(
                f"model '{checkpoint.name}': tensor '{name}' holds NaN or infinity, or more than"
                " float32 holds; the checkpoint is damaged or its training diverged. Nothing was"
                " written"
            )
        yield _bytes(values.to(torch_dtype(source.dtype)))


def _bytes(values: Tensor) -> memoryview:
    import torch

    flat = values.contiguous().view(-1).view(torch.uint8)
    return memoryview(cast(bytearray, flat.numpy()))
