"""Pickled weights as a source of bytes: headers at once, tensors after they were converted."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.files.file_names import INDEX, PICKLE_INDEX, WEIGHTS, top_level
from merge_ops.checkpoints.files.strict_json import load_json
from merge_ops.checkpoints.pickles.dcp_folders import folder_with_config, metadata_of
from merge_ops.checkpoints.pickles.pickled_parts import PickledParts, PickleReader
from merge_ops.children import OwnFolder
from merge_ops.errors import CheckpointError

_PIECE = 8 << 20


class PickledFiles:
    """The files of a model with pickled weights, as if they were safetensors.

    Their headers are read by a limited child, from the pickles' indexes. `fetch`, or the first look
    at a tensor, converts them into a temporary folder, which is there until the process ends.
    """

    def __init__(self, path: Path, adapter: bool = False, follow_links: bool = False) -> None:
        self._given = path
        self._lock = threading.Lock()
        self._here: FolderSource | None = None
        self._kept: OwnFolder | None = None
        if path.is_file():
            self._folder, self._parts = path.parent, PickledParts.of_file(path)
            self._beside: FolderSource | None = None
        else:
            self._folder, self._parts = path, PickledParts.find(path, adapter=adapter)
            beside = path if metadata_of(path) is None else folder_with_config(path)
            self._beside = FolderSource(beside, remembers=True, follow_links=follow_links)
        self._texts = {INDEX: self._parts.index} if self._parts.index is not None else {}
        self._sizes = self._small_sizes() | {name: len(text) for name, text in self._texts.items()}
        with PickleReader(self._parts.place) as reader:
            for old, new in self._parts.renamed.items():
                header = reader.header(self._folder / old)
                self._texts[new] = len(header).to_bytes(8, "little") + header
                self._sizes[new] = len(self._texts[new]) + _data_bytes(header)

    @property
    def location(self) -> str:
        """Return the folder's path."""
        return str(self._folder)

    @property
    def path(self) -> Path:
        """Return where the weights are as safetensors, or, before that, where the pickles are."""
        return self._here.path if self._here is not None else self._given

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes as it is once the weights are converted."""
        return self._sizes

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`, exactly, or raise OSError."""
        text = self._texts.get(file)
        if text is not None and offset + len(buffer) <= len(text):
            buffer[:] = text[offset : offset + len(buffer)]
            return
        if text is None and self._beside is not None:
            self._beside.read_into(file, offset, buffer)
            return
        self._converted().read_into(file, offset, buffer)

    def fetch(self) -> None:
        """Convert the weights, unless they are.

        Raises CheckpointError where they cannot be, or are others than when they were opened.
        """
        self._converted()

    def close(self) -> None:
        """Remove the converted weights before the process ends; they are converted anew if read."""
        with self._lock:
            if self._kept is not None:
                self._kept.close()
            self._here = self._kept = None

    def prove(self, hashed: Mapping[str, tuple[tuple[int, int, int, int, int], str]]) -> None:
        """Compare all reads of the converted files with what was hashed; call `fetch` before.

        Raises ChangedInputError where one has other bytes, or where a file beside the pickles had
        when it was read.
        """
        self._converted().prove(hashed)
        if self._beside is not None:
            beside = self._beside.sizes()
            self._beside.prove({file: each for file, each in hashed.items() if file in beside})

    def check_unchanged(self) -> None:
        """Raise ChangedInputError where a file that was read is not what it was any more."""
        for source in (self._here, self._beside):
            if source is not None:
                source.check_unchanged()

    def _converted(self) -> FolderSource:
        with self._lock:
            if self._here is None:
                self._kept = OwnFolder()
                self._convert(self._kept.path)
            assert self._here is not None
            return self._here

    def _convert(self, out: Path) -> None:
        with PickleReader(self._parts.place) as reader:
            for old, new in sorted(self._parts.renamed.items()):
                header = reader.convert(self._folder / old, out / new)
                if self._texts[new][8:] != header:
                    raise CheckpointError(
                        f"{self._parts.place}: {old} is another file than when it was opened; run"
                        " this again"
                    )
        if self._beside is None:
            self._here = FolderSource(out, next(iter(self._parts.renamed.values())))
            return
        if self._parts.index is not None:
            (out / INDEX).write_bytes(self._parts.index)
        for file, size in self._small_sizes().items():
            with (out / file).open("wb") as copy:
                for start in range(0, size, _PIECE):
                    data = bytearray(min(_PIECE, size - start))
                    self._beside.read_into(file, start, memoryview(data))
                    copy.write(data)
        self._here = FolderSource(out)

    def _small_sizes(self) -> dict[str, int]:
        """What lies beside the weights, at the folder's top."""
        if self._beside is None:
            return {}
        known = self._beside.sizes()
        return {
            file: known[file]
            for file in top_level(known)
            if file != PICKLE_INDEX and not file.endswith((*WEIGHTS, ".distcp"))
        }


def _data_bytes(header: bytes) -> int:
    table = load_json(header)
    ends = [each["data_offsets"][1] for name, each in table.items() if name != "__metadata__"]
    return max(ends, default=0)
