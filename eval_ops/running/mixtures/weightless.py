"""A mixture of experts as modules without weights, and the files that its tensors are read from."""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eval_ops.errors import CheckpointLoadError, PromptsError
from eval_ops.running.foreign_work import limited_modules

if TYPE_CHECKING:
    from torch import Tensor

MIXTURES = ("mixtral", "qwen2_moe", "qwen3_moe")
"""Model types whose routing is computed in moe_walk.py."""
_SINGLE, _INDEX = "model.safetensors", "model.safetensors.index.json"


class TensorFiles:
    """The tensors of a folder's safetensors files, read one by one.

    Raises CheckpointLoadError where there are none, or one is not whole.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        opener: Any = safe_open
        self._folder = folder
        self._file_of: dict[str, Any] = {}
        try:
            for path in _weight_files(folder):
                handle: Any = opener(path, framework="pt", device="cpu").__enter__()
                self._file_of |= dict.fromkeys(handle.keys(), handle)
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointLoadError(f"{folder}: its weights cannot be read: {error}") from error

    def __len__(self) -> int:
        """Return the number of tensors."""
        return len(self._file_of)

    def below(self, prefix: str) -> dict[str, str]:
        """Return the tensors whose names start so, by the rest of the name."""
        return {
            name[len(prefix) :]: name for name in sorted(self._file_of) if name.startswith(prefix)
        }

    def read(self, name: str, at: int | None = None) -> "Tensor":
        """Return a tensor, or its part `at` of the first axis, as it is stored."""
        handle = self._file_of.get(name)
        if handle is None:
            raise CheckpointLoadError(f"{self._folder}: has no '{name}', which its layers need")
        return handle.get_tensor(name) if at is None else handle.get_slice(name)[at]


def _weight_files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.is_file():
        return [folder / _SINGLE]
    names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    stray = [name for name in names if Path(name).name != name]
    if stray:
        raise ValueError(f"{_INDEX} names {stray[0]!r}, which lies outside the folder")
    return [folder / name for name in names]


def without_weights(folder: Path, files: TensorFiles) -> Any:
    """Return the model's modules without weights, but for what positions need.

    Embeddings are read by rows, and there is no final norm. Raises PromptsError for a model that is
    no mixture known here, CheckpointLoadError.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    configs: Any = AutoConfig
    models: Any = AutoModelForCausalLM
    try:
        config = configs.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        quantized = getattr(config, "quantization_config", None)
        if config.model_type not in MIXTURES or quantized:
            what = "a quantized model" if quantized else config.model_type
            problem = f"is {what}; moe_experts are measured in plain weights of"
            raise PromptsError(str(folder), [f"{problem} {', '.join(MIXTURES)}"])
        with limited_modules(len(files)), torch.device("meta"):
            model = models.from_config(config, trust_remote_code=False).eval()
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config)
    except PromptsError:
        raise
    except Exception as error:  # transformers raises nearly every kind
        raise CheckpointLoadError(
            f"{folder}: cannot be loaded as a causal language model: {type(error).__name__}:"
            f" {error}"
        ) from error
    model.model.norm = torch.nn.Identity()
    model.model.embed_tokens = _embedding(files)
    return model


def _embedding(files: TensorFiles) -> Any:
    import torch

    class Embedding(torch.nn.Module):
        """Reads the rows of tokens, and no others."""

        def forward(self, tokens: torch.Tensor) -> torch.Tensor:
            name = "model.embed_tokens.weight"
            rows = {each: files.read(name, each) for each in sorted(set(tokens[0].tolist()))}
            return torch.stack([rows[each] for each in tokens[0].tolist()])[None]

    return Embedding()
