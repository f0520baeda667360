"""A symmetry: for each tensor the order and factors of its rows and of its columns.

It is put together from what happens to the spaces between matrices (residual stream, neurons,
heads). y = W x becomes y' = W' x' where y' and x' are the changed spaces: rows of W follow what
happens to y, columns undo what happens to x.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import blake3
import numpy as np

from merge_ops.checkpoints.checkpoint import (
    Checkpoint,
    DigestOf,
    Fetch,
    RearrangedTensor,
    source_of,
)
from merge_ops.symmetries.anatomy import Anatomy
from merge_ops.symmetries.monomial import Monomial, identity

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerSymmetry:
    """A layer symmetry says what happens to the spaces inside one layer.

    `units` acts on the neurons, (I,): gate rows take its order, up rows its factors too. `queries`,
    `keys` act on rows of q and k, (H d,) and (K d,); `values` on rows of v, (K d,), and `outputs`
    on what the output matrix reads, (H d,). `attention_norm` and `mlp_norm` are factors of the
    norms' weights, (D,), in the order before any change of the residual stream.
    """

    units: Monomial
    queries: Monomial
    keys: Monomial
    values: Monomial
    outputs: Monomial
    attention_norm: NDArray[np.float64]
    mlp_norm: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Change:
    """A change takes a tensor's rows and its columns in another order, each times a factor."""

    rows: Monomial | None
    columns: Monomial | None

    def inverse(self) -> Change:
        """Return the change that undoes this one."""
        return Change(
            self.rows.inverse() if self.rows else None,
            self.columns.inverse() if self.columns else None,
        )

    @property
    def is_identity(self) -> bool:
        """Return whether nothing is changed."""
        return all(each is None or each.is_identity for each in (self.rows, self.columns))


@dataclass(frozen=True, eq=False)
class Symmetry:
    """A symmetry has a change for every tensor that is not left as it is."""

    changes: Mapping[str, Change]

    @property
    def digest(self) -> str:
        """Return a digest that covers every number."""
        hasher = blake3.blake3()
        for name in sorted(self.changes):
            change = self.changes[name]
            parts = [each.digest if each else "-" for each in (change.rows, change.columns)]
            hasher.update(f"{name}\0{parts[0]}\0{parts[1]}\0".encode())
        return hasher.hexdigest()

    @property
    def is_exact(self) -> bool:
        """Return whether all factors are powers of two: then it is undone bit for bit."""
        parts = [part for each in self.changes.values() for part in (each.rows, each.columns)]
        return all(part is None or part.is_exact for part in parts)

    def inverse(self) -> Symmetry:
        """Return the symmetry that undoes this one."""
        return Symmetry({name: change.inverse() for name, change in self.changes.items()})


def unchanged_layer(anatomy: Anatomy) -> LayerSymmetry:
    """Return a layer's symmetry that changes nothing."""
    queries, keys = anatomy.heads * anatomy.head_size, anatomy.kv_heads * anatomy.head_size
    ones = np.ones(anatomy.hidden)
    return LayerSymmetry(
        identity(anatomy.intermediate),
        identity(queries),
        identity(keys),
        identity(keys),
        identity(queries),
        ones,
        ones,
    )


def joined(
    anatomy: Anatomy,
    residual: Monomial,
    layers: Mapping[str, LayerSymmetry],
    final_norm: NDArray[np.float64] | None = None,
) -> Symmetry:
    """Put the changes of all spaces together.

    `residual` acts on the residual stream, (D,), and has signs as its only factors. `final_norm`
    are factors of the last norm, (D,), which a tied head does not allow.
    """
    ones = np.ones(anatomy.hidden)
    final = ones if final_norm is None else final_norm
    changes = {
        anatomy.embedding: Change(None, residual),
        anatomy.final_norm: Change(_norm(residual, final), None),
    }
    if anatomy.head is not None:
        changes[anatomy.head] = Change(None, _reader(residual, final))
    for name, layer in layers.items():
        attention, mlp = (
            _reader(residual, each) for each in (layer.attention_norm, layer.mlp_norm)
        )
        of_part = {
            "input_layernorm.weight": Change(_norm(residual, layer.attention_norm), None),
            "post_attention_layernorm.weight": Change(_norm(residual, layer.mlp_norm), None),
            "self_attn.q_proj.weight": Change(layer.queries, attention),
            "self_attn.k_proj.weight": Change(layer.keys, attention),
            "self_attn.v_proj.weight": Change(layer.values, attention),
            "self_attn.q_proj.bias": Change(layer.queries, None),
            "self_attn.k_proj.bias": Change(layer.keys, None),
            "self_attn.v_proj.bias": Change(layer.values, None),
            "self_attn.o_proj.weight": Change(residual, layer.outputs.reciprocal()),
            "self_attn.o_proj.bias": Change(residual, None),
            "mlp.gate_proj.weight": Change(layer.units.unscaled(), mlp),
            "mlp.gate_proj.bias": Change(layer.units.unscaled(), None),
            "mlp.up_proj.weight": Change(layer.units, mlp),
            "mlp.up_proj.bias": Change(layer.units, None),
            "mlp.down_proj.weight": Change(residual, layer.units.reciprocal()),
            "mlp.down_proj.bias": Change(residual, None),
        }
        for part, change in of_part.items():
            if anatomy.has(name, part):
                changes[f"{name}.{part}"] = change
    return Symmetry({name: each for name, each in changes.items() if not each.is_identity})


def _norm(residual: Monomial, factors: NDArray[np.float64]) -> Monomial:
    """What happens to a norm's weight: it follows the order, and its sign does not show."""
    return Monomial(residual.index, factors[residual.index])


def _reader(residual: Monomial, factors: NDArray[np.float64]) -> Monomial:
    """What happens to columns that read the stream behind a norm with such factors."""
    return Monomial(residual.index, 1.0 / (residual.scale * factors[residual.index]))


@dataclass(frozen=True, eq=False)
class TransformedTensor(RearrangedTensor):
    """A transformed tensor is another one with its rows and columns in another order and scale."""

    change: Change

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return what the tensor is made from, and digests of the orders and factors."""
        told = [each.digest if each else None for each in (self.change.rows, self.change.columns)]
        return ["symmetry", *told, self.own.identity(digest_of)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on; whole rows are read for them."""
        import torch

        width = prod(self.shape[1:])
        end = start + into.numel()
        first, last = start // width, -(-end // width)
        block = torch.empty((last - first, width), dtype=torch.float32)
        rows, columns = self.change.rows, self.change.columns
        if rows is None:
            self.own.fill(fetch, first * width, block.view(-1))
        elif 2 * (last - first) >= rows.size:  # one read of all takes less than one of each
            every = torch.empty((rows.size, width), dtype=torch.float32)
            self.own.fill(fetch, 0, every.view(-1))
            scale = _tensor(rows.scale[first:last].astype(np.float32))
            block = every[_tensor(rows.index[first:last])].mul_(scale[:, None])
        else:
            for place, row in enumerate(rows.index[first:last].tolist()):
                self.own.fill(fetch, row * width, block[place])
            scale = _tensor(rows.scale[first:last].astype(np.float32))
            block.mul_(scale[:, None])
        if columns is not None:
            block = block[:, _tensor(columns.index)]
            block.mul_(_tensor(columns.scale.astype(np.float32)))
        into.copy_(block.view(-1)[start - first * width : end - first * width])


def _tensor(array: Any) -> Tensor:
    """An array as a tensor, which shares its memory."""
    import torch

    untyped: Any = torch
    return untyped.from_numpy(array)


def transformed(checkpoint: Checkpoint, symmetry: Symmetry, name: str | None = None) -> Checkpoint:
    """Return a checkpoint with the tensors that a symmetry makes of it, made while they are read.

    It has no digest of its own: whoever writes it knows what it was made from.
    """
    overlays = dict(checkpoint.overlays)
    for tensor, change in symmetry.changes.items():
        own = source_of(checkpoint, tensor)
        if own is not None:
            overlays[tensor] = TransformedTensor(own, change)
    return dataclasses.replace(checkpoint, name=name or checkpoint.name, overlays=overlays)
