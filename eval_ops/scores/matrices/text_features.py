"""Texts as hashed counts of their character 1- to 3-grams: for any language, without a model."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BUCKETS = 4096
"""Features; two n-grams that share one are told apart by the others."""
LONGEST = 20_000
"""Characters of a text that count."""
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint64(0xBF58476D1CE4E5B9)

Features = NDArray[np.float64]


def text_features(texts: Sequence[str], buckets: int = BUCKETS) -> Features:
    """Return one row of length 1 a text, shape [texts, buckets]: log(1 + count), normalized.

    A text without characters has a row of zeros.
    """
    rows = np.zeros((len(texts), buckets))
    for row, text in zip(rows, texts, strict=True):
        encoded = text[:LONGEST].encode("utf-32-le", "surrogatepass")
        points = np.frombuffer(encoded, np.uint32).astype(np.uint64)
        for size in (1, 2, 3):
            if len(points) >= size:
                row += np.bincount(_hashed(points, size) % np.uint64(buckets), minlength=buckets)
        row[:] = np.log1p(row)
        norm = np.linalg.norm(row)
        if norm > 0:
            row /= norm
    return rows


def _hashed(points: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    """A number for each n-gram; that of an n-gram is the same wherever it stands."""
    count = len(points) - size + 1
    total = np.full(count, size, dtype=np.uint64)
    with np.errstate(over="ignore"):
        for shift in range(size):
            total = (total ^ points[shift : shift + count]) * _MULTIPLIER
            total ^= total >> np.uint64(29)
        total *= _SPREAD
    return total ^ (total >> np.uint64(32))
