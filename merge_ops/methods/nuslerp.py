"""nuslerp: along the sphere between two models or task vectors; whole, by rows or by columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merge_ops.kernels.elementary import arc_cosines, sines_and_cosines
from merge_ops.measures.combination import WeightedSum
from merge_ops.measures.gram import GramMeasure, Matrix
from merge_ops.measures.measure import Block, Measure, TensorJob
from merge_ops.measures.rows import as_rows, column_sums, row_length, row_sums, rows_between
from merge_ops.methods.parameters import REQUIRED, per_input, shared
from merge_ops.methods.registry import Span, merge_method
from merge_ops.methods.weight_sums import sum_of_two

if TYPE_CHECKING:
    from merge_ops.kernels.arithmetic import Arithmetic, Values

NEAR_ZERO = 1e-6  # sum of nuslerp's weights below which it goes half way
LEAST_NORM = 1e-7  # mergekit's bound of lengths that divide
COLINEAR = 1e-12  # of 1 − cos²; in mergekit's float32 no angle that small can be told from none

Sums = NDArray[np.float64]


@dataclass(frozen=True)
class NuslerpParameters:
    """`weight` of the second over the sum of both is how far to go."""

    weight: tuple[float, ...] = per_input("weight", REQUIRED, "the model's share")
    nuslerp_row_wise: bool = shared(
        "nuslerp_row_wise",
        bool,
        False,
        "with `nuslerp_flatten: false`, an angle for each column instead of one for each row",
    )
    nuslerp_flatten: bool = shared("nuslerp_flatten", bool, True, "one angle for the whole tensor")

    @property
    def t(self) -> float:
        """How far to go from the first to the second."""
        first, second = self.weight
        return 0.5 if abs(first + second) < NEAR_ZERO else second / (first + second)


def arc_shares(t: float, sums: Sums) -> Sums:
    """sin((1−t)Ω)/sin Ω and sin(tΩ)/sin Ω of many pairs; 1 − t and t where the two are colinear.

    Their a², b² and ab, shape (3, …), to both shares, shape (2, …).
    """
    norms = np.maximum(np.sqrt(np.maximum(sums[:2], 0.0)), LEAST_NORM)
    cosines = np.clip(sums[2] / (norms[0] * norms[1]), -1.0, 1.0)
    colinear = 1 - cosines * cosines <= COLINEAR
    angles = arc_cosines(cosines)
    whole = np.where(colinear, 1.0, sines_and_cosines(angles)[0])
    first, second = (sines_and_cosines(part * angles)[0] / whole for part in (1 - t, t))
    return np.stack([np.where(colinear, 1 - t, first), np.where(colinear, t, second)])


def _shares_of_tensor(gram: Matrix, parameters: NuslerpParameters) -> list[float]:
    return arc_shares(parameters.t, np.array([gram[0, 0], gram[1, 1], gram[0, 1]])).tolist()


def _by_column(parameters: NuslerpParameters, shape: tuple[int, ...]) -> bool:
    """A single row has no columns to speak of; mergekit takes it as a row."""
    return not parameters.nuslerp_flatten and parameters.nuslerp_row_wise and len(shape) > 1


class ArcMeasure(Measure):
    """The shares of both inputs: of the whole tensor, of every column, or of a block's rows.

    The first two take one round of inner products, rows none. Columns follow mergekit's `dim=0`:
    sums over the first dimension. In a matrix a block adds its rows up to three float64 values for
    each column; in tensors of more dimensions its products are kept (12 bytes for each element).
    """

    def __init__(self, job: TensorJob, parameters: Sequence[NuslerpParameters]) -> None:
        self._arithmetic = job.arithmetic
        self._shape = job.shape
        self._parameters = parameters
        self._whole: GramMeasure | None = None
        if any(each.nuslerp_flatten for each in parameters):
            self._whole = GramMeasure(job, parameters, _shares_of_tensor)
        self._columns = any(_by_column(each, job.shape) for each in parameters)
        self._sums: Sums = np.empty((3, 0))
        self._shares: dict[float, NDArray[np.float32]] = {}
        self.wanted = self._columns or self._whole is not None

    def observe(self, block: Block) -> tuple[list[Matrix], NDArray[np.floating] | None]:
        """Leaf sums of the products, and sums of columns, each where they are asked for."""
        whole = self._whole.observe(block) if self._whole else []
        return whole, self._column_products(block) if self._columns else None

    def _column_products(self, block: Block) -> NDArray[np.floating]:
        """a², b² and ab of every element, as rows: summed over them where that is all there is."""
        a, b = self._arithmetic.tensors([as_rows(values) for values in block.inputs])
        products = [a * a, b * b, a * b]
        if rows_between(self._shape) == 1:
            products = [column_sums(product) for product in products]
        return np.stack([product.cpu().numpy() for product in products])

    def absorb(
        self, observations: Sequence[tuple[list[Matrix], NDArray[np.floating] | None]]
    ) -> None:
        """The sums become shares.

        Leaf sums have shape (leaves,); products have shape (3, rows, columns), with one row where
        the block was summed over its rows.
        """
        if self._whole:
            self._whole.absorb([whole for whole, _ in observations])
        if self._columns:
            import torch

            parts = np.concatenate([part for _, part in observations if part is not None], axis=1)
            width = rows_between(self._shape) * row_length(self._shape)
            sums = column_sums(torch.as_tensor(parts.reshape(3, -1, width))).numpy()
            self._sums = sums.reshape(3, -1, row_length(self._shape))
            for each in self._parameters:
                if _by_column(each, self._shape) and each.t not in self._shares:
                    self._shares[each.t] = arc_shares(each.t, self._sums).astype(np.float32)
        self.wanted = False

    def at(self, block: Block, coefficient: int) -> Sequence[Any]:
        """Two numbers, or two values that go with the block's rows: (1 or rows, 1 or n)."""
        parameters = self._parameters[coefficient]
        if parameters.nuslerp_flatten and self._whole:
            return self._whole.at(block, coefficient)
        rows, other = (as_rows(values) for values in block.inputs)
        if _by_column(parameters, self._shape):
            shares = self._shares[parameters.t]
            if (between := shares.shape[1]) > 1:
                first = block.start // rows.shape[1]
                shares = shares[:, np.arange(first, first + rows.shape[0]) % between]
        else:
            pairs = (rows, rows), (other, other), (rows, other)
            sums = np.stack([row_sums(self._arithmetic, *pair) for pair in pairs])
            shares = arc_shares(parameters.t, sums).astype(np.float32)[:, :, np.newaxis]
        return [self._arithmetic.from_host(np.ascontiguousarray(share)) for share in shares]


def _span(parameters: NuslerpParameters) -> Span:
    return "element" if parameters.nuslerp_flatten else "row"


@merge_method(
    "nuslerp",
    parameters=NuslerpParameters,
    sees="either",
    span="row",
    span_of=_span,
    family="basic",
    source="https://github.com/arcee-ai/mergekit#nuslerp",
    arrays=True,
    measure=ArcMeasure,
    check=sum_of_two,
    base="optional",
    exactly=2,
)
def nuslerp(
    inputs: Sequence[Values],
    shares: Sequence[Any],
    parameters: NuslerpParameters,
    arithmetic: Arithmetic,
) -> Values | WeightedSum:
    """[sin((1−t)Ω) a + sin(tΩ) b] / sin Ω, t = w_b / (w_a + w_b), Ω the angle between a and b.

    Goddard 2024 (mergekit). Unlike slerp it names two models besides a base, and with a base turns
    their task vectors. With `nuslerp_flatten: false` every run of the last dimension has its own Ω,
    with `nuslerp_row_wise: true` every run of the first one (a column, in a matrix: mergekit's
    name says otherwise); a tensor of one dimension is one run either way.

    Memory, when not flattened: a block is whole rows, at least one. By column there are 24 bytes
    for each block and column between the two passes; tensors of three dimensions or more, save
    those whose middle ones are 1, keep 12 bytes for each element.
    """
    first, second = shares
    if isinstance(first, float):
        return WeightedSum(inputs, (first, second))
    merged = as_rows(inputs[0]) * first
    merged += as_rows(inputs[1]) * second
    return merged
