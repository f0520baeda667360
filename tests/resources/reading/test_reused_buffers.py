"""Whoever writes may use its buffer again at once, on any store."""

import numpy as np

from resources.store.artifact_store import ArtifactStore

SIZE, PIECE = 20_000_003, 1 << 20  # several parts of an upload, and a rest


def test_one_buffer_for_all_pieces_of_a_file(store: ArtifactStore) -> None:
    data = np.random.default_rng(5).integers(0, 256, SIZE, dtype=np.uint8)
    buffer = np.empty(PIECE, dtype=np.uint8)
    with store.attempt("model") as attempt:
        with attempt.open("model.safetensors", SIZE) as writer:
            for start in range(0, SIZE, PIECE):
                piece = data[start : start + PIECE]
                buffer[: len(piece)] = piece
                writer.write(memoryview(buffer)[: len(piece)])
                buffer[:] = 0
        published = attempt.publish()
    assert store.verify(published) == []
    read = memoryview(bytearray(SIZE))
    with published.source() as source:
        source.read_into("model.safetensors", 0, read)
    assert bytes(read) == data.tobytes()
