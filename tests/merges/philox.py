"""Random words by numpy's own Philox: what both arithmetics are held to."""

import numpy as np

WORDS_PER_STEP = 16
MASK = (1 << 64) - 1
UPPER, LOWER = 0, 1


def words(key, stream, start, count):
    """Words [start, start + count) of a stream, 16 bits each."""
    first, skip = divmod(start, WORDS_PER_STEP)
    # numpy advances its counter before it draws: begin one step earlier (modulo 2^256).
    counter = ((stream << 64 | first) - 1) % (1 << 256)
    philox = np.random.Philox(
        counter=np.array([(counter >> (64 * k)) & MASK for k in range(4)], dtype=np.uint64),
        key=np.array(key, dtype=np.uint64),
    )
    draws = -(-(skip + count) // 4)
    drawn = np.random.Generator(philox).integers(0, MASK, draws, dtype=np.uint64, endpoint=True)
    return drawn.view(np.uint16)[skip : skip + count]


def numbers(key, start, count):
    """The 32-bit numbers of elements from `start` on."""
    upper, lower = (words(key, stream, start, count).astype(np.uint64) for stream in (UPPER, LOWER))
    return (upper << np.uint64(16)) | lower


def mask(key, start, count, density):
    """1 where the number of an element is below its chance, else 0."""
    return (numbers(key, start, count) < round(density * 2**32)).astype(np.float32)


def mask_by_rank(key, start, rows, chances):
    """The mask of rows whose entries are kept by the chance of their rank, by a stable sort."""
    order = np.argsort(np.abs(rows), axis=1, kind="stable")
    ranks = np.argsort(order, axis=1, kind="stable")
    limits = np.minimum(np.rint(chances * 2**32), 2**32 - 1).astype(np.uint64)
    drawn = numbers(key, start, rows.size).reshape(rows.shape)
    return (drawn < limits[ranks]).astype(np.float32)
