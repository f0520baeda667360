"""Keys of protections: a secret number, and the symmetry that it stands for.

Whoever has the key undoes the protection bit for bit; without it the public base does, nearly (see
`aligning`). Orders come from Philox, keyed by the secret, the place and its purpose, so that a key
gives the same symmetry on every machine.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import blake3
import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.errors import Fault, SettingsError, did_you_mean
from merge_ops.symmetries.anatomy import Anatomy, read_anatomy
from merge_ops.symmetries.monomial import Monomial, by_blocks, identity
from merge_ops.symmetries.symmetry import LayerSymmetry, Symmetry, joined

if TYPE_CHECKING:
    from numpy.typing import NDArray

KINDS = {
    "mlp": "neurons in another order, the rows of up scaled and turned in sign",
    "vo": "values within each key-value head in another order, scaled and turned in sign",
    "qk": "queries and keys turned by quarter turns pair by pair, and scaled",
    "heads": "groups of heads, and heads within a group, in another order",
    "norms": "norms scaled, and the matrices behind them by the reciprocal",
    "residual": "the residual stream in another order, with signs",
}
"""What a protection may change; each keeps the function."""

SECRET_BYTES = 32
VERSION = 1
LARGEST_POWER = 3  # factors are 2^−3 to 2^3: larger ones cost precision in sums of bfloat16


@dataclass(frozen=True)
class ProtectionKey:
    """A protection key is a secret of 256 bits as hexadecimal digits, and what it changes.

    `scaled` is false for float16, whose small numbers a factor would cut off.
    """

    secret: str
    kinds: tuple[str, ...]
    scaled: bool = True

    def to_json(self) -> dict[str, Any]:
        """Return the key as plain data. Whoever reads it can undo the protection."""
        return {
            "protection_key": VERSION,
            "secret": self.secret,
            "kinds": list(self.kinds),
            "scaled": self.scaled,
        }

    @property
    def digest(self) -> str:
        """Return a digest that names the key and does not tell it."""
        return blake3.blake3(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()


def new_key(kinds: Sequence[str] = tuple(KINDS), scaled: bool = True) -> ProtectionKey:
    """Draw a new key. Raises SettingsError for a kind of change that there is not."""
    _check_kinds(kinds)
    ordered = tuple(kind for kind in KINDS if kind in kinds)
    return ProtectionKey(secrets.token_hex(SECRET_BYTES), ordered, scaled)


def key_from_json(value: object, where: str) -> ProtectionKey:
    """Read a key from plain data; `where` names it. Raises SettingsError where it is none."""
    table = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    secret, kinds = table.get("secret"), table.get("kinds")
    sound = isinstance(secret, str) and len(secret) == 2 * SECRET_BYTES
    sound = sound and not set(str(secret)) - set("0123456789abcdef")
    if table.get("protection_key") != VERSION or not sound or not isinstance(kinds, list):
        problem = f"is no protection key of version {VERSION}, as `ronghe protect` writes it"
        raise SettingsError(where, [Fault("key", problem)])
    listed = [str(each) for each in cast("list[object]", kinds)]
    _check_kinds(listed)
    return ProtectionKey(str(secret), tuple(listed), table.get("scaled") is not False)


def _check_kinds(kinds: Sequence[str]) -> None:
    faults = [
        Fault("kinds", f"holds {kind!r}; allowed: {', '.join(KINDS)}.{did_you_mean(kind, KINDS)}")
        for kind in kinds
        if kind not in KINDS
    ]
    if not kinds:
        faults.append(Fault("kinds", f"is empty; allowed: {', '.join(KINDS)}"))
    if faults:
        raise SettingsError("a protection", faults)


def symmetry_of(key: ProtectionKey, model: Checkpoint) -> Symmetry:
    """Return the symmetry that a key stands for, on a model of this shape.

    Raises CompatibilityError where the model has none that is known here.
    """
    anatomy = read_anatomy(model)
    draw = _Draw(key)
    residual = identity(anatomy.hidden)
    if "residual" in key.kinds:
        residual = draw.monomial(anatomy.hidden, "residual", scaled=False)
    layers = {name: _layer(draw, anatomy, name) for name in anatomy.layers}
    final = None
    if "norms" in key.kinds and anatomy.head is not None:
        final = draw.powers(anatomy.hidden, "final norm")
    return joined(anatomy, residual, layers, final)


def _layer(draw: _Draw, anatomy: Anatomy, name: str) -> LayerSymmetry:
    kinds, size = draw.key.kinds, anatomy.head_size
    groups = np.arange(anatomy.kv_heads, dtype=np.int64)
    if "heads" in kinds:
        groups = draw.order(anatomy.kv_heads, f"{name} groups")
    heads: list[int] = []
    for group in groups.tolist():
        inside = np.arange(anatomy.group, dtype=np.int64)
        if "heads" in kinds:
            inside = draw.order(anatomy.group, f"{name} heads {group}")
        heads += (group * anatomy.group + inside).tolist()
    values = [identity(size) for _ in groups]
    if "vo" in kinds:
        values = [draw.monomial(size, f"{name} values {group}") for group in groups.tolist()]
    turns = [(identity(size), identity(size)) for _ in groups]
    if "qk" in kinds and not anatomy.normed_heads:
        turns = [_turn(draw, anatomy, f"{name} turns {group}") for group in groups.tolist()]
    units = identity(anatomy.intermediate)
    if "mlp" in kinds:
        units = draw.monomial(anatomy.intermediate, f"{name} units")
    norms = [np.ones(anatomy.hidden), np.ones(anatomy.hidden)]
    if "norms" in kinds:
        norms = [draw.powers(anatomy.hidden, f"{name} norm {number}") for number in range(2)]
    order = np.array(heads, dtype=np.int64)
    of_group = [place // anatomy.group for place in range(anatomy.heads)]
    return LayerSymmetry(
        units,
        by_blocks(order, [turns[place][0] for place in of_group]),
        by_blocks(groups, [each[1] for each in turns]),
        by_blocks(groups, values),
        by_blocks(order, [values[place] for place in of_group]),
        norms[0],
        norms[1],
    )


def turned(
    size: int, rotary: int, quarters: NDArray[np.int64], lengths: NDArray[np.float64]
) -> tuple[Monomial, Monomial]:
    """Return what turning the pairs (i, i + rotary/2) of a head does to its queries and keys.

    Keys are multiplied by z = length · i^quarter, queries by i^quarter / length: each product of a
    query with a key stays. `quarters` and `lengths` have one entry for each pair.
    """
    half = rotary // 2
    index = np.arange(size, dtype=np.int64)
    sign = np.ones(size)
    first, second = np.arange(half), np.arange(half, rotary)
    odd = quarters % 2 == 1
    index[first[odd]], index[second[odd]] = second[odd], first[odd]
    # i (x, y) = (−y, x), i² = −1, i³ (x, y) = (y, −x)
    sign[first] = np.array([1.0, -1.0, -1.0, 1.0])[quarters]
    sign[second] = np.array([1.0, 1.0, -1.0, -1.0])[quarters]
    scale = np.ones(size)
    scale[first] = scale[second] = lengths
    return Monomial(index, sign / scale), Monomial(index, sign * scale)


def _turn(draw: _Draw, anatomy: Anatomy, purpose: str) -> tuple[Monomial, Monomial]:
    half = anatomy.rotary_size // 2
    quarters = (draw.numbers(half, purpose) % 4).astype(np.int64)
    lengths = np.abs(draw.powers(half, f"{purpose} lengths"))
    return turned(anatomy.head_size, 2 * half, quarters, lengths)


class _Draw:
    """Orders and factors from a key: each purpose has a stream of its own."""

    def __init__(self, key: ProtectionKey) -> None:
        self.key = key

    def numbers(self, count: int, purpose: str) -> NDArray[np.uint64]:
        """Uniform numbers of 64 bits, (count,)."""
        told = blake3.blake3(f"{self.key.secret}\0{purpose}".encode()).digest()
        words = [int.from_bytes(told[at : at + 8], "little") for at in (0, 8)]
        philox = np.random.Philox(key=np.array(words, dtype=np.uint64))
        return np.atleast_1d(philox.random_raw(count)).astype(np.uint64)

    def order(self, count: int, purpose: str) -> NDArray[np.int64]:
        """A random order, (count,)."""
        return np.argsort(self.numbers(count, f"{purpose} order"), kind="stable").astype(np.int64)

    def powers(self, count: int, purpose: str) -> NDArray[np.float64]:
        """Random powers of two, (count,); ones where the dtype has no room for factors."""
        if not self.key.scaled:
            return np.ones(count)
        span = 2 * LARGEST_POWER + 1
        exponents = (self.numbers(count, f"{purpose} powers") % span).astype(np.int64)
        return np.ldexp(1.0, exponents - LARGEST_POWER)

    def monomial(self, count: int, purpose: str, scaled: bool = True) -> Monomial:
        """A random order with signs, and with powers of two."""
        signs = 1.0 - 2.0 * (self.numbers(count, f"{purpose} signs") % 2).astype(np.float64)
        scale = signs * self.powers(count, purpose) if scaled else signs
        return Monomial(self.order(count, purpose), scale)
