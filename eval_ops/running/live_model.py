"""One causal language model kept in memory, whose weights are exchanged for the next checkpoint's.

Building a module and its tokenizer costs far more than reading a small model's weights. Where the
next checkpoint has the same config.json and tokenizer files, and its tensors are exactly the
module's, they are copied into it; otherwise everything is loaded afresh.
"""

import contextlib
import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from blake3 import blake3

from eval_ops.errors import CheckpointLoadError
from eval_ops.running.foreign_work import limited, limited_modules

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

IDENTITY_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab*",
    "merges.txt",
    "*.model",
    "*.jinja",
    "*.tiktoken",
)
"""Files that decide the module and the tokenizer, as glob patterns; weights and cards do not."""


class Loaded(NamedTuple):
    """A model on its device, in evaluation mode, and its tokenizer."""

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"


class LiveModel:
    """Holds at most one model on `device` ("cpu", "cuda", "cuda:1")."""

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._identity = ""
        self._loaded: Loaded | None = None

    def load(self, folder: Path) -> Loaded:
        """Load `folder` afresh, after letting go of what was loaded before.

        Floating-point precision is the checkpoint's own. CheckpointLoadError leaves no model here.
        """
        self._loaded = None
        self._loaded = _load_afresh(folder, self._device)
        self._identity = _identity(folder)
        return self._loaded

    def exchange(self, folder: Path) -> bool:
        """Copy the folder's weights into the module in memory; False, untouched, if they don't fit.

        CheckpointLoadError when its files are broken; no model is left here then.
        """
        live = self._loaded
        if live is None or _identity(folder) != self._identity:
            return False
        from safetensors import SafetensorError, safe_open

        files = _weight_files(folder)
        state = live.model.state_dict()
        try:
            with contextlib.ExitStack() as stack:
                handles: list[Any] = [
                    stack.enter_context(safe_open(file, framework="pt", device="cpu"))
                    for file in files
                ]
                if not _fits(handles, state):
                    return False
                self._loaded = None  # until every tensor is in, this is no checkpoint's model
                for handle in handles:
                    for name in handle.keys():  # noqa: SIM118  (a handle is no mapping)
                        state[name].copy_(handle.get_tensor(name))
        except (SafetensorError, OSError) as error:
            self._loaded = None
            raise _load_error(folder, error) from error
        self._loaded = live
        return True


def tokenizer_digest(folder: Path) -> str:
    """Return the digest of the files that make a folder's tokenizer."""
    return _identity(folder, IDENTITY_FILES[2:])


def _identity(folder: Path, patterns: Sequence[str] = IDENTITY_FILES) -> str:
    total = blake3()
    names = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    for path in names:
        if path.is_file():
            content = path.read_bytes()
            total.update(f"{path.name}\0{len(content)}\0".encode())
            total.update(content)
    return total.hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up the checkpoint."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    try:
        names = set(json.loads(index.read_bytes())["weight_map"].values())
    except (ValueError, KeyError, AttributeError) as error:
        raise _load_error(folder, error) from error
    stray = sorted(name for name in names if Path(name).name != name)
    if stray:
        raise CheckpointLoadError(
            f"{index}: names the file {stray[0]!r}, which lies outside the checkpoint's folder"
        )
    return [folder / name for name in sorted(names)]


def _fits(handles: list[Any], state: "Mapping[str, torch.Tensor]") -> bool:
    """Whether the files hold exactly the module's tensors: same names, shapes and dtypes.

    Tied tensors share their memory, so a file may hold either of them, but not both.
    """
    names: list[str] = []
    for handle in handles:
        for name in handle.keys():  # noqa: SIM118
            tensor = state.get(name)
            part = handle.get_slice(name)
            if tensor is None or list(tensor.shape) != part.get_shape():
                return False
            if str(tensor.dtype) not in _DTYPES.get(part.get_dtype(), ""):
                return False
            names.append(name)
    filled = {state[name].data_ptr() for name in names}
    return len(filled) == len(names) and filled == {t.data_ptr() for t in state.values()}


_DTYPES = {
    "F64": "torch.float64",
    "F32": "torch.float32",
    "F16": "torch.float16",
    "BF16": "torch.bfloat16",
}


def load_to_read(folder: Path) -> Loaded:
    """Load a folder whose weights stay views of its files: memory is taken as they are used.

    For work that is done before anybody writes to the files. Raises CheckpointLoadError.
    """
    return _load_afresh(folder, None)


def _load_afresh(folder: Path, device: str | None) -> Loaded:
    """Load a folder to a device; to none, its weights are views of the files."""
    if not (folder / "config.json").is_file():
        raise CheckpointLoadError(
            f"{folder}: holds no config.json, so it is no Hugging Face checkpoint; give the "
            "folder of a whole model (an adapter must be merged into its base first)"
        )
    from transformers import AutoModelForCausalLM

    model_class: Any = AutoModelForCausalLM
    try:
        with _no_progress_bars(), limited_modules(_count_tensors(folder)):
            model, report = model_class.from_pretrained(
                folder,
                dtype="auto",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
            tokenizer = load_tokenizer(folder)
            missing = sorted(report["missing_keys"]) + sorted(map(str, report["mismatched_keys"]))
            model = model.eval()
            if not missing and device is not None:
                _own(model)
                model = model.to(device)
    except Exception as error:  # transformers raises nearly every kind
        raise _load_error(folder, error) from error
    if missing:
        raise CheckpointLoadError(
            f"{folder}: {len(missing)} tensors of the model are missing or of another shape (for "
            f"example {missing[0]}); the checkpoint is incomplete, or its config.json is another "
            "model's"
        )
    return Loaded(model, tokenizer)


def load_tokenizer(folder: Path) -> "PreTrainedTokenizerBase":
    """Load the tokenizer of a folder, without code of its own and within the limits of such work.

    Raises whatever transformers raises.
    """
    from transformers import AutoTokenizer

    tokenizer_class: Any = AutoTokenizer
    with limited(tokenizer_bytes(folder)):
        return tokenizer_class.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )


def _own(model: "PreTrainedModel") -> None:
    """Give the module memory of its own, which is aligned alike for every checkpoint.

    What transformers loads are views of the mapped files. Those may be written over while the
    module lives on: a candidate that is never written lies in memory that the next one takes.
    """
    tensors = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    for tensor in tensors.values():
        tensor.data = tensor.data.clone()


def _count_tensors(folder: Path) -> int:
    import safetensors

    opener: Any = safetensors.safe_open
    count = 0
    for file in _weight_files(folder):
        if file.is_file():
            with opener(file, framework="pt", device="cpu") as handle:
                count += len(handle.keys())
    return count


def tokenizer_bytes(folder: Path) -> int:
    """Return the bytes of the files that make the tokenizer."""
    names = {path for pattern in IDENTITY_FILES[2:] for path in folder.glob(pattern)}
    return sum(path.stat().st_size for path in names)


def _load_error(folder: Path, error: BaseException) -> CheckpointLoadError:
    return CheckpointLoadError(
        f"{folder}: cannot be loaded as a causal language model: {type(error).__name__}: {error}"
    )


@contextlib.contextmanager
def _no_progress_bars() -> Generator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
