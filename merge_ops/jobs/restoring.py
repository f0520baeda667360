"""A packed model's files, or any model's, written again as they were, to the byte."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import blake3

from merge_ops.checkpoints.files.byte_sources import ByteSink, ByteSource, ByteWriter
from merge_ops.errors import PackedModelError
from merge_ops.kernels.cores import usable_cores
from merge_ops.progress import Progress
from merge_ops.sources.packed_index import PULL_AGAIN
from merge_ops.sources.packed_source import PackedSource

READ = 1 << 21  # bytes restored by one thread at a time


class Nowhere:
    """This sink keeps nothing; it serves to see whether a model can be restored."""

    def open(self, file: str, size: int) -> ByteWriter:
        """Start a file and return a writer that forgets its bytes."""
        return _Nothing()


class _Nothing:
    def write(self, data: memoryview | bytes) -> object:
        """Forget the bytes."""

    def __enter__(self) -> ByteWriter:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing was begun."""


def restore(
    source: PackedSource, sink: ByteSink, threads: int = 0, progress: Progress | None = None
) -> None:
    """Write a packed model's files into `sink` as they were before packing.

    Raises PackedModelError where the bytes of a file would differ from what they were.
    """
    hashes = copy_files(source, sink, threads, progress)
    for file in source.index.files:
        if hashes[file.path] != file.blake3:
            raise PackedModelError(
                f"{source.location}: {file.path} is not restored to the bytes it had; it is damaged"
                f" in a way that its checksums do not see; {PULL_AGAIN}"
            )


def copy_files(
    source: ByteSource, sink: ByteSink, threads: int = 0, progress: Progress | None = None
) -> dict[str, str]:
    """Write every file of `source` into `sink` and return the files' BLAKE3 by path.

    Threads read ahead.
    """
    hashes: dict[str, str] = {}
    sizes = source.sizes()
    total, done = sum(sizes.values()), 0
    threads = threads or usable_cores()
    with ThreadPoolExecutor(threads, "restore") as pool:
        for file, size in sizes.items():
            hasher = blake3.blake3(max_threads=blake3.blake3.AUTO)
            with sink.open(file, size) as writer:
                for part in _parts(pool, source, file, size, 2 * threads):
                    hasher.update(part)
                    writer.write(part)
                    done += len(part)
                    if progress:
                        progress(done, total)
            hashes[file] = hasher.hexdigest()
    return hashes


def _parts(
    pool: ThreadPoolExecutor, source: ByteSource, file: str, size: int, ahead: int
) -> Iterator[memoryview]:
    def read(start: int) -> memoryview:
        part = memoryview(bytearray(min(READ, size - start)))
        source.read_into(file, start, part)
        return part

    reading: deque[Future[memoryview]] = deque()
    try:
        for start in range(0, size, READ):
            reading.append(pool.submit(read, start))
            if len(reading) > ahead:
                yield reading.popleft().result()
        while reading:
            yield reading.popleft().result()
    finally:
        for future in reading:
            future.cancel()
