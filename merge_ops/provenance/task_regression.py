"""Whose task vectors is a model made of? Regression of its own on those of candidates.

θ_s − θ_0 = Σ wᵢ (θᵢ − θ_0) + rest, by least squares over all entries: for each tensor, for each
layer and as a whole. It is exact for a linear merge whose parts are all candidates; of what is
missing among them, the part that fine-tunes of one base have in common goes to the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import natural_key
from merge_ops.checkpoints.names.buffers import is_buffer
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.tensor_names import is_vocabulary
from merge_ops.checkpoints.names.ties import excluded, find_source
from merge_ops.measures.measure import LEAF, total
from merge_ops.plans.agreement.vocabulary_agreement import differing_vocabulary
from merge_ops.progress import Progress
from merge_ops.stream.looking import Look, look_through, tensor_to_see
from merge_ops.stream.settings import StreamSettings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Matrix = NDArray[np.float64]

DEPENDENT = 1e-10
"""Of the largest eigenvalue of a Gram matrix: below it candidates cannot be told apart."""


@dataclass(frozen=True)
class Shares:
    """Shares are one regression: a weight and a standard error for each candidate.

    `explained` is the share of the suspect's squared task vector that the candidates explain (R²),
    None where it has none. Weights of candidates that are combinations of others are NaN.
    """

    weights: tuple[float, ...]
    errors: tuple[float, ...]
    explained: float | None
    count: int


@dataclass(frozen=True)
class TaskRegression:
    """A task regression holds the shares of the whole, of each layer, and of each tensor.

    Layers are (stack, number) as they are named, and what lies outside of layers is ("", None).
    `left_out` has each tensor that not all models have in one shape, with the reason.
    """

    candidates: tuple[str, ...]
    whole: Shares
    layers: Mapping[tuple[str, int | None], Shares]
    tensors: Mapping[str, Shares]
    left_out: Mapping[str, str]
    matrices: frozenset[str]

    def is_matrix_of_layer(self, name: str) -> bool:
        """Return whether a tensor is a matrix, or a stack of them, in a layer."""
        return name in self.matrices


def common_tensors(
    base: Checkpoint, models: Sequence[Checkpoint]
) -> tuple[dict[str, tuple[TensorSource, list[TensorSource]]], dict[str, str]]:
    """Return the float tensors that all models have in one shape: the base's, and the others'.

    Beside them the tensors that are left out, each with the reason. Rows of embeddings are left out
    where vocabularies differ.
    """
    found: dict[str, tuple[TensorSource, list[TensorSource]]] = {}
    left_out: dict[str, str] = dict(excluded(base))
    other = next((each for each in models if differing_vocabulary(base, each)), None)
    for name in sorted(base.tensors, key=natural_key):
        origin = find_source(base, name)
        if name in left_out or origin is None:
            continue
        sources = [find_source(each, name) for each in models]
        if origin.dtype not in FLOAT_DTYPES or is_buffer(name, base.tensors[name]):
            left_out[name] = "no float weight"
        elif other is not None and is_vocabulary(name):
            left_out[name] = f"rows of another vocabulary in {other.name}"
        elif any(each is None or each.shape != origin.shape for each in sources):
            place = [each is None or each.shape != origin.shape for each in sources].index(True)
            left_out[name] = f"missing, or of another shape, in {models[place].name}"
        elif 0 not in origin.shape:
            found[name] = origin, [each for each in sources if each is not None]
    return found, left_out


def regress_tasks(
    base: Checkpoint,
    candidates: Sequence[Checkpoint],
    suspect: Checkpoint,
    settings: StreamSettings | None = None,
    progress: Progress | None = None,
) -> TaskRegression:
    """Regress the suspect's task vector on those of the candidates, in one pass over all weights.

    The models have the base's names. Raises what `look_through` raises.
    """
    models = [*candidates, suspect]
    common, left_out = common_tensors(base, models)
    tensors = [tensor_to_see(name, each[1], each[0]) for name, each in common.items()]
    size = len(models)
    pairs = [(i, j) for i in range(size) for j in range(i, size)]

    def observe(look: Look) -> list[Matrix]:
        flat = look.inputs
        return [look.arithmetic.leaf_sums(flat[i], flat[j], LEAF) for i, j in pairs]

    grams: dict[str, Matrix] = {}
    seen = look_through(tensors, observe, settings, progress)
    for name, parts in zip(common, seen, strict=True):
        gram = np.zeros((size, size))
        for place, (i, j) in enumerate(pairs):
            gram[i, j] = gram[j, i] = total(part[place] for part in parts)
        grams[name] = gram
    counts = {name: math.prod(each[0].shape) for name, each in common.items()}
    layers: dict[tuple[str, int | None], list[str]] = {}
    for name in common:
        layers.setdefault(layer_of(name) or ("", None), []).append(name)
    return TaskRegression(
        tuple(each.name for each in candidates),
        _together(grams, counts, list(common)),
        {place: _together(grams, counts, names) for place, names in layers.items()},
        {name: shares_of(gram, counts[name]) for name, gram in grams.items()},
        left_out,
        frozenset(
            name for name, each in common.items() if len(each[0].shape) > 1 and layer_of(name)
        ),
    )


def _together(grams: Mapping[str, Matrix], counts: Mapping[str, int], names: Sequence[str]) -> Any:
    size = next(iter(grams.values())).shape[0] if grams else 1
    gram = np.zeros((size, size))
    for name in names:
        gram = gram + grams[name]
    return shares_of(gram, sum(counts[name] for name in names))


def shares_of(gram: Matrix, count: int) -> Shares:
    """Return the shares that a Gram matrix tells, shape (n + 1, n + 1) with the suspect last.

    `count` is the number of entries. Weights are w = G⁻¹ X, errors √(diag(G⁻¹) RSS / (count − n)).
    """
    own, product, square = gram[:-1, :-1], gram[:-1, -1], float(gram[-1, -1])
    size = len(own)
    nothing = Shares((math.nan,) * size, (math.nan,) * size, None, count)
    if not np.isfinite(gram).all() or not size:
        return nothing
    lengths = np.sqrt(np.diag(own))
    known = lengths > 0
    weights, errors = np.full(size, math.nan), np.full(size, math.nan)
    if known.any():
        scale = lengths[known]
        cosines = own[np.ix_(known, known)] / np.outer(scale, scale)
        values, vectors = np.linalg.eigh(cosines)
        if values[0] <= DEPENDENT * values[-1]:
            return nothing
        inverse = (vectors / values) @ vectors.T / np.outer(scale, scale)
        weights[known] = inverse @ product[known]
        rest = max(0.0, square - float(weights[known] @ product[known]))
        errors[known] = np.sqrt(np.diag(inverse) * rest / max(1, count - int(known.sum())))
    explained = None
    if square > 0:
        explained = float(np.nan_to_num(weights) @ product) / square
    return Shares(tuple(weights.tolist()), tuple(errors.tolist()), explained, count)
