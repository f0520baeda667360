"""The JSON files beside a model's weights: each read once, and equal bytes parsed once a process.

Experts of one base model carry the base's tokenizer.json, several megabytes of it, byte for byte.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Mapping
from threading import Lock
from typing import Any, Generic, TypeVar

import blake3

from merge_ops.checkpoints.files.byte_sources import ByteSource, read_file
from merge_ops.checkpoints.files.file_bounds import MAX_SIDE_FILE, bound_of
from merge_ops.checkpoints.files.strict_json import parse_json_object
from merge_ops.errors import CheckpointError

MAX_KEPT = 16 << 20
"""Bytes of text whose parsed form is kept: it takes about ten times as much, and a tokenizer.json
has 2 to 20 MB."""

Value = TypeVar("Value")


class JsonFiles:
    """A `JsonFiles` reads the JSON files of one model.

    Values that it returns are shared, so callers must not change them.
    """

    def __init__(self, source: ByteSource, sizes: Mapping[str, int]) -> None:
        self._source = source
        self._sizes = sizes
        self._digests: dict[str, str] = {}

    def __contains__(self, file: str) -> bool:
        return file in self._sizes

    def digest(self, file: str) -> str:
        """Return the BLAKE3 of a file's bytes.

        Raises OSError, and CheckpointError where the file is too long.
        """
        if file not in self._digests:
            self._digests[file] = _digest(self._bytes(file))
        return self._digests[file]

    def read(self, file: str) -> Mapping[str, Any]:
        """Return the JSON object in a file, the same object for equal bytes.

        Raises CheckpointError where the file holds no JSON object, or is far too long.
        """
        known = self._digests.get(file)
        value = _parsed.get(known) if known else None
        if value is not None:
            return value
        data = self._bytes(file)
        digest = self._digests[file] = _digest(data)
        value = _parsed.get(digest)
        if value is None:
            parsed = parse_json_object(self._place(file), data, bound_of(file))
            value = _parsed.keep(digest, parsed, len(data))
        return value

    def _place(self, file: str) -> str:
        return f"{self._source.location}/{file}"

    def _bytes(self, file: str) -> bytes:
        size = self._sizes[file]
        most = bound_of(file).nbytes if file.endswith(".json") else MAX_SIDE_FILE
        if size > most:
            raise CheckpointError(
                f"{self._place(file)}: has {size} bytes, and a file of this kind has at most"
                f" {most}; restore the file from its source"
            )
        return read_file(self._source, file, 0, size)


def _digest(data: bytes) -> str:
    return blake3.blake3(data).hexdigest()


class Kept(Generic[Value]):
    """A bounded memory holds values by key and drops the least used first.

    A key must say all of what its value is. `limit` is the most weight that it holds: bytes, or a
    count.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = Lock()
        self._values: OrderedDict[Hashable, tuple[Value, int]] = OrderedDict()
        self._held = 0

    def get(self, key: Hashable) -> Value | None:
        """Return the value, or None where it is not held (any more)."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key][0]

    def keep(self, key: Hashable, value: Value, weight: int = 1) -> Value:
        """Hold a value and return it.

        A value heavier than the limit is returned, but not held.
        """
        if weight <= self._limit:
            with self._lock:
                _, before = self._values.pop(key, (None, 0))
                self._values[key] = value, weight
                self._held += weight - before
                while self._held > self._limit:
                    _, (_, dropped) = self._values.popitem(last=False)
                    self._held -= dropped
        return value


_parsed = Kept[Mapping[str, Any]](MAX_KEPT)
