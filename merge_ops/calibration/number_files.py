"""Files of numbers that were measured: written whole or not at all, their heads read with bounds.

A `FileKind` says what messages call them; names, shapes and what numbers may be are for the format
(gates.py, moe_statistics.py).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.files.file_bounds import HEADER
from merge_ops.checkpoints.files.strict_json import load_json
from merge_ops.checkpoints.header import TensorEntry, read_header
from merge_ops.checkpoints.layout import OutputTensor, header_of
from merge_ops.errors import CheckpointError, MissingModelError, OutputError
from merge_ops.working_folders import working_folder


@dataclass(frozen=True)
class FileKind:
    """A kind of files holds `numbers` (`gates`), `comes_from` a command, and has at most `most`.

    `most` are bytes.
    """

    numbers: str
    comes_from: str
    most: int

    def write(
        self,
        path: Path,
        tensors: Sequence[OutputTensor],
        told: Mapping[str, str],
        data: Iterable[bytes],
    ) -> None:
        """Write tensors and what the file says of itself; what was there is replaced.

        Raises OutputError where it cannot be written.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with working_folder(path.parent) as folder:
                made = folder / path.name
                with made.open("xb") as file:
                    file.write(header_of(tensors, dict(sorted(told.items()))))
                    for each in data:
                        file.write(each)
                    file.flush()
                    os.fsync(file.fileno())
                made.replace(path)
        except OSError as error:
            problem = f"{path}: {self.numbers} cannot be written ({error.strerror})"
            raise OutputError(problem) from error

    def head(self, path: Path, source: ByteSource) -> tuple[dict[str, TensorEntry], dict[str, str]]:
        """Return the tensors of a file, and its metadata.

        Raises MissingModelError where there is no file, CheckpointError where it is damaged or too
        large.
        """
        size = source.sizes().get(path.name)
        if size is None:
            raise MissingModelError(f"{path} is not there; {self.comes_from}")
        if size > self.most:
            raise CheckpointError(
                f"{path}: has {size} bytes; a file of {self.numbers} has at most {self.most}, so"
                " this is something else"
            )

        def read(offset: int, length: int) -> bytes:
            return read_file(source, path.name, offset, length)

        entries = read_header(str(path), path.name, size, read)
        header: Any = load_json(
            read(8, int.from_bytes(read(0, 8), "little")), one_value_each=True, bound=HEADER
        )
        found = cast("dict[str, Any]", header).get("__metadata__")
        told = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
        return entries, {name: value for name, value in told.items() if isinstance(value, str)}

    def check_content(self, path: Path, told: str, digest: str) -> None:
        """Raise CheckpointError where a file's numbers are not those that were written."""
        if told != digest:
            raise CheckpointError(
                f"{path}: its numbers are not those that were written (the digest differs); the"
                f" file is damaged: remove it and measure the {self.numbers} again"
            )
