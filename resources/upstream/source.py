"""What an upstream model is, whatever place it comes from, and which of its files are taken.

Safetensors weights and plain text beside them are taken. A pickle can run code when it is opened:
pickled weights are left out where there are others. Where there are none, those that transformers
and PEFT write are handed out as bytes, which whoever takes them must convert before anything is
opened; all others are refused.
"""

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import Protocol

from resources.errors import (
    MissingSourceError,
    ModelSourceError,
    UnknownSchemeError,
    UnsafeWeightsError,
)
from resources.reading import Progress

# What a merge copies beside the weights (merge_ops/plans/side_files.py), without code.
TEXT_SUFFIXES = frozenset(
    {".json", ".txt", ".model", ".spm", ".jinja", ".tiktoken", ".bpe", ".codes", ".vocab"}
)
TEXT_NAMES = re.compile(
    r"(README|LICEN[CS]E|NOTICE|USE_POLICY|COPYING)[\w .-]*|tokenizer\.model\.[\w.-]+",
    re.IGNORECASE,
)
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
WEIGHT_SUFFIXES = (".safetensors", ".bin")
MAX_SIDE_FILE = 200_000_000
"""Bytes of a file beside the weights, as merge_ops/checkpoints/files/file_bounds.py has it."""
CONVERTIBLE = re.compile(r"(pytorch_model|adapter_model)(-\d+-of-\d+)?\.bin")
SINGLE, ADAPTER = "model.safetensors", "adapter_model.safetensors"
_INDEX = re.compile(r".+\.safetensors\.index\.json")
_SHARD = re.compile(r"(?P<stem>.+)-\d+-of-(?P<count>\d+)\.safetensors")
_CONSOLIDATED = re.compile(r"consolidated.*\.safetensors(\.index\.json)?")
_VARIANT = re.compile(
    r"model\.(fp16|bf16|fp32|fp8|ema|non_ema)(-\d+-of-\d+)?\.safetensors"
    r"|model\.safetensors\.index\.[\w-]+\.json"
)
TEMPLATE_FOLDER = "additional_chat_templates"
MODULES_FILE = "modules.json"
MODULE_FOLDER = re.compile(r"\d{1,2}_[A-Z]\w*")
"""The parts of a sentence-transformers model (1_Pooling, 2_Dense, …), which MODULES_FILE lists."""


class FileWriter(Protocol):
    """One file being written in order."""

    def write(self, data: memoryview) -> object:
        """Append bytes."""
        ...


class FileSink(Protocol):
    """Where a source is copied to; an attempt of the artifact store is one."""

    def open(self, file: str, size: int) -> AbstractContextManager[FileWriter]:
        """Start a file of `size` bytes."""
        ...


class ModelSource(Protocol):
    """One upstream model; `location` says where it is, for messages, and holds no secret."""

    location: str

    def revision(self, progress: Progress | None = None) -> str:
        """Return a text that changes when the model does, and pin it for `copy_to`.

        For a folder the blake3 of its files, equal to the content digest of the artifact copied
        from it (unless its weights are pickled); for S3 the blake3 of its sizes and ETags; for the
        Hub and ModelScope the commit.
        """
        ...

    def resolved(self) -> str | None:
        """Return the URI that names exactly what was pinned, such as hf://owner/name@commit.

        None for a folder, whose name says nothing elsewhere.
        """
        ...

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy every file of the model into `sink`.

        SourceChangedError is raised where it is not the one any more that `revision` described.
        """
        ...


def check_plain(scheme: str, rest: str) -> None:
    """Raise UnknownSchemeError for what could hold credentials, without quoting it."""
    if "@" in rest.split("/")[0] or (scheme != "hf" and re.search(r"[?#]", rest)):
        raise UnknownSchemeError(
            f"a {scheme}:// model source holds more than a path (a user, or a query); credentials "
            f"come from the environment or ~/.aws"
        )


def wanted_files(names: Iterable[str], location: str) -> list[str]:
    """Choose the files that make up a model, of all relative POSIX paths at `location`; sorted.

    These are safetensors (or `CONVERTIBLE` pickles where there are none) and the plain text beside
    them. MissingSourceError is raised where there are no weights, UnsafeWeightsError where there
    are only pickles of another kind. Of several sets of weights the one is taken that transformers
    loads; ModelSourceError is raised where a single file and a whole set of shards are there.
    """
    paths = [PurePosixPath(name) for name in names]
    chosen = _one_set(sorted(path.as_posix() for path in paths if _wanted(path)), location)
    indexed = any(_INDEX.fullmatch(name) for name in chosen)
    loadable = SINGLE in chosen or indexed
    further = [
        path.name
        for path in paths
        if len(path.parts) == 1
        and CONVERTIBLE.fullmatch(path.name)
        and not loadable
        and not (ADAPTER in chosen and path.name.startswith("adapter_model"))
    ]
    if any(name.endswith(".safetensors") for name in chosen):
        return sorted([*chosen, *further])
    pickles = sorted(
        path.name for path in paths if len(path.parts) == 1 and path.suffix in PICKLE_SUFFIXES
    )
    convertible = [name for name in pickles if CONVERTIBLE.fullmatch(name)]
    if convertible:
        return sorted([*chosen, *convertible])
    if pickles:
        raise UnsafeWeightsError(
            f"model source {location} has its weights only as pickle ({', '.join(pickles[:3])}), "
            f"which can run code when opened, and is refused (only pytorch_model.bin and "
            f"adapter_model.bin are converted); convert them to safetensors (load with "
            f"transformers in a place you trust, then save_pretrained) and name that folder"
        )
    there = ", ".join(sorted(path.as_posix() for path in paths)[:5]) or "nothing"
    raise MissingSourceError(
        f"model source {location} has no .safetensors file; there is {there}. Name a Hugging Face "
        f"style folder, with config.json and *.safetensors"
    )


def _one_set(names: list[str], location: str) -> list[str]:
    """The files without those that are passed over beside others: the rule of transformers.

    model.safetensors comes before shards, plain names before their variants (`model.fp16…`), and
    both before another layout of the same model (`consolidated…`).
    """
    shards = {name: found for name in names if (found := _SHARD.fullmatch(name))}
    if SINGLE in names:
        counts: dict[str, int] = {}
        for found in shards.values():
            if found["stem"] == "model":
                counts[found["count"]] = counts.get(found["count"], 0) + 1
        whole = [count for count, number in counts.items() if int(count) == number]
        if whole and f"{SINGLE}.index.json" in names:
            raise ModelSourceError(
                f"model source {location} holds two sets of weights, {SINGLE} and"
                f" {int(whole[0])} shards with an index, and both are whole; remove or move the"
                f" one that is not meant (transformers takes {SINGLE})"
            )
        old = {name for name, found in shards.items() if found["stem"] == "model"}
        if old:
            old.add(f"{SINGLE}.index.json")
        names = [name for name in names if name not in old]
    plain = any(name == SINGLE or name == f"{SINGLE}.index.json" for name in names)
    if plain:
        names = [name for name in names if not _CONSOLIDATED.fullmatch(name)]
    return [name for name in names if not (plain and _VARIANT.fullmatch(name))]


def _wanted(path: PurePosixPath) -> bool:
    if any(part.startswith(".") for part in path.parts):
        return False
    if len(path.parts) == 2 and path.parts[0] == TEMPLATE_FOLDER:
        return path.suffix == ".jinja"
    if len(path.parts) == 2 and MODULE_FOLDER.fullmatch(path.parts[0]):
        return path.suffix in TEXT_SUFFIXES
    return len(path.parts) == 1 and (
        path.suffix == ".safetensors"
        or path.suffix in TEXT_SUFFIXES
        or TEXT_NAMES.fullmatch(path.name) is not None
    )
