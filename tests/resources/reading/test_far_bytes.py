"""Files far away as a source of bytes: few requests, and exactly the bytes that are asked for."""

from collections.abc import Mapping

import pytest

from resources.reading import FarBytes

WEIGHTS, CONFIG = bytes(range(256)) * 1024, b'{"model_type": "llama"}'


class Far:
    """Two files, and the ranges that were asked for."""

    def __init__(self) -> None:
        self.files = {"model.safetensors": WEIGHTS, "config.json": CONFIG, "empty.txt": b""}
        self.asked: list[tuple[str, int, int]] = []

    def resolved(self) -> str:
        return "far://model@1"

    def sizes(self) -> Mapping[str, int]:
        return {name: len(data) for name, data in self.files.items()}

    def read(self, file: str, offset: int, length: int) -> bytes:
        self.asked.append((file, offset, length))
        return self.files[file][offset : offset + length]


def read(files: FarBytes, file: str, offset: int, length: int) -> bytes:
    buffer = bytearray(length)
    files.read_into(file, offset, memoryview(buffer))
    return bytes(buffer)


def test_a_header_takes_one_request_and_a_small_file_too() -> None:
    far = Far()
    files = FarBytes(far)
    assert read(files, "model.safetensors", 0, 8) == WEIGHTS[:8]
    assert read(files, "model.safetensors", 8, 1000) == WEIGHTS[8:1008]
    assert read(files, "config.json", 2, 10) == CONFIG[2:12]
    assert read(files, "config.json", 0, len(CONFIG)) == CONFIG
    assert read(files, "empty.txt", 0, 0) == b""
    assert far.asked == [("model.safetensors", 0, 128 << 10), ("config.json", 0, len(CONFIG))]
    assert files.starts["config.json"] == CONFIG


def test_what_lies_behind_the_start_is_asked_for_and_no_more() -> None:
    far, head = Far(), 128 << 10
    files = FarBytes(far)
    assert read(files, "model.safetensors", head - 4, 12) == WEIGHTS[head - 4 : head + 8]
    assert read(files, "model.safetensors", len(WEIGHTS) - 3, 3) == WEIGHTS[-3:]
    assert [each[1:] for each in far.asked] == [(0, head), (head, 8), (len(WEIGHTS) - 3, 3)]


def test_a_file_that_is_shorter_than_was_listed_is_an_error() -> None:
    far = Far()
    files = FarBytes(far)
    far.files["model.safetensors"] = WEIGHTS[:-1]
    with pytest.raises(
        OSError, match=rf"far://model@1/model\.safetensors ends at byte {2**18 - 1}"
    ):
        read(files, "model.safetensors", 0, len(WEIGHTS))
