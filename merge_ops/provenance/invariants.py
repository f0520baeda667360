"""What stays when weights are permuted and scaled: are two models one by descent?

Independence (Zhu et al. 2025, "Independence tests for language models", arXiv:2502.12292): in each
layer the neurons of two models are matched by their gate rows and once more by their up rows. Of
models of one origin both give the same pairs, of independent ones they have nothing to do with each
other; Spearman's ρ of the two and its p-value, joined over layers by Fisher.

HuRef (Zeng et al. 2023, arXiv:2312.04828): products of matrices in which every permutation,
rotation and scale cancels, seen through the embeddings of frequent tokens; the cosine of the two
models' products (ICS). Norms are multiplied in first, here and above.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.stream.block_reader import read_values
from merge_ops.symmetries import Anatomy
from merge_ops.symmetries.matching import match_among

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

MOST_LAYERS = 3  # that the independence test looks at, spread over the model
MOST_UNITS = 1024  # neurons of the first model that are matched among all of the second
TOKENS = 400  # whose embeddings HuRef looks through
LAST_LAYERS = 2


@dataclass(frozen=True)
class Independence:
    """An independence holds ρ and p-value of each layer looked at, and the joint p-value.

    A small p-value says that the models have one origin. `layers` has (layer, ρ, p).
    """

    layers: tuple[tuple[str, float, float], ...]
    p_value: float


def independence(
    first: tuple[Checkpoint, Anatomy], second: tuple[Checkpoint, Anatomy]
) -> Independence | None:
    """Test whether two models were trained independently; None where their layers do not compare.

    Needs equal widths. scipy gives ranks and distributions.
    """
    stats: Any = import_module("scipy.stats")

    ours, theirs = first[1], second[1]
    widths = [(each.hidden, each.intermediate, len(each.layers)) for each in (ours, theirs)]
    if widths[0] != widths[1]:
        return None
    count = min(MOST_LAYERS, len(ours.layers))
    evenly: list[float] = np.linspace(0, len(ours.layers) - 1, count).tolist()
    places = sorted({round(place) for place in evenly})
    found: list[tuple[str, float, float]] = []
    for place in places:
        orders: list[Any] = []
        for part in ("gate", "up"):
            matrices = [
                _matrix(model, f"{anatomy.layers[place]}.mlp.{part}_proj.weight")
                * _matrix(model, f"{anatomy.layers[place]}.post_attention_layernorm.weight")
                for model, anatomy in (first, second)
            ]
            step = max(1, len(matrices[0]) // MOST_UNITS)
            orders.append(match_among(matrices[0][::step], matrices[1], signed=part == "up"))
        tested: Any = stats.spearmanr(*orders)
        rho, p = float(tested.statistic), float(tested.pvalue)
        if math.isfinite(rho):
            found.append((ours.layers[place], rho, max(p, 1e-300) if rho > 0 else 1.0))
    if not found:
        return None
    statistic = -2.0 * math.fsum(math.log(p) for _, _, p in found)
    return Independence(tuple(found), float(stats.chi2.sf(statistic, 2 * len(found))))


def huref(
    first: tuple[Checkpoint, Anatomy], second: tuple[Checkpoint, Anatomy], rows: Sequence[int]
) -> float | None:
    """Return the cosine of two models' invariants (ICS): near 1 of one origin, near 0 of two.

    `rows` are the rows of the embeddings to look through, the same tokens in both models. None
    where nothing is to be compared.
    """
    parts: list[list[Matrix]] = []
    for model, anatomy in (first, second):
        parts.append([_standardised(each) for each in _invariants(model, anatomy, rows)])
    if len(parts[0]) != len(parts[1]) or not parts[0]:
        return None
    ours, theirs = (np.concatenate([each.ravel() for each in side]) for side in parts)
    lengths = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / lengths if lengths > 0 else None


def token_rows(first: Checkpoint, second: Checkpoint, embeddings: tuple[str, str]) -> list[int]:
    """Return rows of the embeddings that both models have: the first ones, evenly spread.

    Tokens of a byte-level vocabulary are numbered by how early they were merged, so that the first
    tenth of the rows are frequent ones.
    """
    counts = [
        model.tensors[name].shape[0]
        for model, name in zip((first, second), embeddings, strict=True)
    ]
    rows = min(counts)
    frequent = max(min(rows, TOKENS), rows // 10)
    return sorted({int(row) for row in np.linspace(0, frequent - 1, min(TOKENS, frequent))})


def _invariants(model: Checkpoint, anatomy: Anatomy, rows: Sequence[int]) -> Iterator[Matrix]:
    """M_a, M_b and M_f of the last layers, (tokens, tokens) each."""
    embedding = _matrix(model, anatomy.embedding, max(rows) + 1)[list(rows)].astype(np.float64)
    size, group = anatomy.head_size, anatomy.group
    for layer in anatomy.layers[-LAST_LAYERS:]:

        def read(part: str, layer: str = layer) -> Matrix:
            return _matrix(model, f"{layer}.{part}.weight").astype(np.float64)

        normed = embedding * read("input_layernorm")
        query, key = (normed @ read(f"self_attn.{each}_proj").T for each in "qk")
        value, output = normed @ read("self_attn.v_proj").T, read("self_attn.o_proj")
        scores = np.zeros((len(rows), len(rows)))
        answers = np.zeros_like(scores)
        for head in range(anatomy.heads):
            own = slice(head * size, (head + 1) * size)
            shared = slice(head // group * size, (head // group + 1) * size)
            scores += query[:, own] @ key[:, shared].T
            answers += value[:, shared] @ (output[:, own].T @ embedding.T)
        yield scores
        yield answers
        normed = embedding * read("post_attention_layernorm")
        yield (normed @ read("mlp.up_proj").T) @ (embedding @ read("mlp.down_proj")).T


def _standardised(matrix: Matrix) -> Matrix:
    spread = float(matrix.std())
    return (matrix - matrix.mean()) / spread if spread > 0 else matrix * 0.0


def _matrix(model: Checkpoint, name: str, rows: int | None = None) -> Any:
    """A tensor's values as float32 in its shape, or those of its first rows."""
    source = find_source(model, name)
    assert source is not None  # the anatomy has been through all of them
    shape = source.shape if rows is None else (rows, *source.shape[1:])
    return read_values(source, 0, math.prod(shape)).numpy().reshape(shape)
