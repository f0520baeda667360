"""Differences of bit patterns as bytes: by hand, the laws, and damage."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.checkpoints.header import ITEM_SIZES
from merge_ops.sources.difference_coding import (
    EXPONENTS,
    GROUP,
    DamagedPieceError,
    _ordered,
    decode_difference,
    decode_whole,
    encode_difference,
    encode_whole,
)

DTYPES = sorted(EXPONENTS)


def bits(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1)


def test_ordered_bit_patterns_by_hand() -> None:
    """bfloat16: -inf, -1, the smallest below 0, -0.0, 0.0, the smallest above 0, 1, a NaN."""
    patterns = np.array(
        [0xFF80, 0xBF80, 0x8001, 0x8000, 0x0000, 0x0001, 0x3F80, 0x7FC1], dtype=np.uint16
    )
    ordered = _ordered(patterns).view(np.int16).tolist()
    assert ordered == [-0x7F81, -0x3F81, -2, -1, 0, 1, 0x3F80, 0x7FC1]
    assert (_ordered(_ordered(patterns)) == patterns).all()


def test_four_weights_by_hand() -> None:
    """1.0 stays, 1.0 moves up by one step, -1.0 away from 0 by one, 0.5 down by two.

    The differences 0, +1, -1, -2 are 0, 2, 1, 3 as zigzag numbers. 0.5 has the smallest exponent
    and comes first: 3, 0, 2, 1. In one bit each, 1 says "too large" and leaves 2, 1 and 0 to be
    written as bytes, the low ones of all and then the high ones, which are 0.
    """
    base = np.array([0x3F80, 0x3F80, 0xBF80, 0x3F00], dtype=np.uint16)
    expert = np.array([0x3F80, 0x3F81, 0xBF81, 0x3EFE], dtype=np.uint16)
    coded = encode_difference(bits(expert), bits(base), "BF16")
    lengths = np.frombuffer(coded[4:52], dtype="<u4").reshape(6, 2)
    assert lengths[:, 0].tolist() == [1, GROUP // 8, 0, 0, 3, 3]  # one group; 1, 2, 4 bits; bytes
    assert coded[52] == 1  # the group's width
    assert coded[-6:] == bytes([2, 1, 0, 0, 0, 0])
    values = bits(base).copy()
    decode_difference(coded, values, "BF16")
    assert values.view(np.uint16).tolist() == expert.tolist()
    assert encode_difference(bits(base), bits(base), "BF16") == b""


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(DTYPES),
    count=st.sampled_from([1, 2, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 7]),
    seed=st.integers(0, 2**32 - 1),
    moved=st.sampled_from([0.0, 0.001, 0.3, 1.0]),
    far=st.sampled_from([1, 3, 200, 70_000]),
)
def test_every_bit_pattern_comes_back(
    dtype: str, count: int, seed: int, moved: float, far: int
) -> None:
    """Any two rows of bit patterns, near each other or not; NaNs and infinities are among them."""
    random, size = np.random.default_rng(seed), ITEM_SIZES[dtype]
    base = random.integers(0, 256, count * size, dtype=np.uint8)
    words = base.view(f"<u{size}").copy()
    steps = random.integers(-far, far + 1, count).astype(f"<i{size}").view(words.dtype)
    words += np.where(random.random(count) < moved, steps, 0).astype(words.dtype)
    expert, values = bits(words), base.copy()
    coded = encode_difference(expert, base, dtype)
    decode_difference(coded, values, dtype)
    assert values.tobytes() == expert.tobytes()
    whole = np.empty_like(expert)
    decode_whole(encode_whole(expert, size), whole, size)
    assert whole.tobytes() == expert.tobytes()


@settings(max_examples=80, deadline=None)
@given(place=st.integers(0, 10**6), change=st.integers(1, 255), cut=st.booleans())
def test_a_damaged_piece_is_refused(place: int, change: int, cut: bool) -> None:
    random = np.random.default_rng(0)
    base = random.integers(0, 256, 2 * GROUP, dtype=np.uint8)
    expert = base ^ (random.random(2 * GROUP) < 0.1).astype(np.uint8)
    coded = bytearray(encode_difference(expert, base, "BF16"))
    place %= len(coded)
    if cut:
        del coded[max(1, place) :]
    else:
        coded[place] ^= change
    if cut and len(coded) == 0:
        return
    with pytest.raises(DamagedPieceError, match=r"^(its|a stream|it has|bytes|zstd) "):
        decode_difference(bytes(coded), base.copy(), "BF16")
