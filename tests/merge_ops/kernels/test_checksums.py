"""Checksums of pieces: the same with and without the compiled loop, and blind to no change."""

import random
from pathlib import Path

import numpy as np
import pytest

from merge_ops.checkpoints.files.opened_files import PIECE, Checksums, FileState, HashedFile
from merge_ops.kernels import checksums as module
from merge_ops.kernels.checksums import MISSING, RIGHT, CheckedPieces, checksums
from merge_ops.kernels.library import library


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 100, 4096, 4097, 12_345])
def test_both_ways_give_the_same(monkeypatch, length: int) -> None:
    if library() is None:
        pytest.skip("the loops are not compiled")
    data = memoryview(np.random.default_rng(length).bytes(length))
    compiled = checksums(data, 4096)
    monkeypatch.setattr(module, "library", lambda: None)
    assert checksums(data, 4096).tolist() == compiled.tolist()
    assert len(compiled) == -(-length // 4096)


@pytest.mark.parametrize("data", [bytes(4096), b"\xff" * 4096, bytes(range(256)) * 16])
def test_every_flipped_bit_is_seen(data: bytes) -> None:
    right = checksums(memoryview(data), 4096)[0]
    for place in range(0, 8 * 4096, 5):
        spoiled = bytearray(data)
        spoiled[place // 8] ^= 1 << place % 8
        assert checksums(memoryview(spoiled), 4096)[0] != right


def test_words_that_change_places_are_seen() -> None:
    data = np.random.default_rng(0).bytes(4096)
    right = checksums(memoryview(data), 4096)[0]
    for one, other in ((0, 8), (0, 64), (512, 1024), (8, 4088)):
        spoiled = bytearray(data)
        spoiled[one : one + 8], spoiled[other : other + 8] = (
            data[other : other + 8],
            data[one : one + 8],
        )
        assert checksums(memoryview(spoiled), 4096)[0] != right


def test_it_does_not_matter_how_the_bytes_come() -> None:
    rng = random.Random(3)
    data = memoryview(rng.randbytes(5 * PIECE + 77))
    whole = checksums(data, PIECE).tolist()
    for _ in range(20):
        taken, at = Checksums(), 0
        while at < len(data):
            step = rng.choice((1, 100, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE))
            taken.update(data[at : at + step])
            at += step
        assert (
            HashedFile(FileState(len(data), 0, 0, 0, 0), taken.text()).numbers().tolist() == whole
        )


@pytest.mark.parametrize("compiled", [True, False])
def test_reads_are_right_or_say_which_piece_is_not(monkeypatch, tmp_path: Path, compiled) -> None:
    if not compiled:
        monkeypatch.setattr(module, "library", lambda: None)
    elif library() is None:
        pytest.skip("the loops are not compiled")
    rng = random.Random(7)
    size, piece = 41 * 512 + 77, 512
    data = rng.randbytes(size)
    path = tmp_path / "file"
    path.write_bytes(data)
    pieces = CheckedPieces(size, piece, checksums(memoryview(data), piece))
    ranges = [sorted(rng.sample(range(size + 1), 2)) for _ in range(60)] + [[0, size]]
    with path.open("r+b", buffering=0) as file:
        for start, end in ranges:
            buffer = memoryview(bytearray(end - start))
            assert pieces.read(file.fileno(), start, buffer) == RIGHT
            assert buffer == data[start:end]
        file.seek(20 * piece + 3)
        file.write(bytes([data[20 * piece + 3] ^ 64]))
        for start, end in ranges:
            buffer = memoryview(bytearray(end - start))
            touched = start < 21 * piece and end > 20 * piece
            expected = 20 * piece if touched else RIGHT
            assert pieces.read(file.fileno(), start, buffer) == expected
        file.truncate(30 * piece)
        assert pieces.read(file.fileno(), 29 * piece, memoryview(bytearray(10))) == RIGHT
        assert pieces.read(file.fileno(), 31 * piece, memoryview(bytearray(10))) == MISSING
