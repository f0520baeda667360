"""Rows for a donor's vocabulary: a model's own rows, and sums of them where it lacks the token.

What a token's row is in the donor as a sum of rows of tokens that both have, it is here as the same
sum of the model's rows of these tokens: by orthogonal matching pursuit (2506.06607;
measures/matching_pursuit.py), or of the nearest ones (measures/interpolation.py). Or the donor's
row is turned as the donor's rows of these tokens are turned onto the model's (`landmark_pca`).
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING

import blake3
import numpy as np

from merge_ops.checkpoints.checkpoint import DigestOf, Fetch, Stored, TensorSource
from merge_ops.errors import NonFiniteError
from merge_ops.kernels.cores import usable_cores
from merge_ops.kernels.linear_algebra import linear_algebra_kind
from merge_ops.measures import interpolation
from merge_ops.measures.interpolation import Rotation, atoms_looked_at, nearest_shares
from merge_ops.measures.matching_pursuit import VERSION, matching_pursuit, targets_at_once
from merge_ops.sources.gathered_rows import GatheredRows, RowMap

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

_READ = 1 << 22  # elements of rows that are read at once
_MOST_THREADS = 16  # each holds a batch, of some 200 MiB


OMP, COMMON_INTERPOLATION, LANDMARK_PCA = "omp", "common_interpolation", "landmark_pca"


@dataclass(frozen=True)
class Way:
    """A way is how a row is made: one of the kinds above, and for interpolation how it weighs."""

    kind: str = OMP
    scheme: str = interpolation.DISTANCE_PROPORTIONAL
    distance: str = interpolation.EUCLIDEAN


@dataclass(frozen=True, eq=False)
class Matching:
    """A matching says which rows are made, and out of which.

    Row `made[i]` of the result stands for row `wanted[i]` of the donor. The tokens that both have
    are row `ours[j]` of the model and row `theirs[j]` of the donor. A row is made of at most `k`.
    Under the `lock` rows are made for one tensor after the other.
    """

    made: NDArray[np.int32]
    wanted: NDArray[np.int32]
    ours: NDArray[np.int32]
    theirs: NDArray[np.int32]
    k: int
    way: Way = Way()
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def digest(self) -> str:
        """Return a digest that covers every number."""
        hasher = blake3.blake3()
        for rows in (self.made, self.wanted, self.ours, self.theirs):
            hasher.update(f"{len(rows)}\0".encode() + rows.astype("<i4").tobytes())
        hasher.update(str(self.k).encode())
        if self.way != Way():
            told = [self.way.kind, self.way.scheme, self.way.distance, interpolation.VERSION]
            hasher.update(repr(told).encode())
        return hasher.hexdigest()

    def held(self, width: int, donor_width: int, tensors: int) -> int:
        """Return the bytes that are held while rows of these widths are made for some tensors."""
        common = len(self.theirs) * (donor_width + width)
        return 4 * (common + tensors * len(self.made) * width)


@dataclass(frozen=True, eq=False)
class MatchedRows:
    """Matched rows are `known`, a model's rows, with those of a matching made by the donor's.

    They are made when one is first asked for, all at once: in batches that depend on the sizes
    alone, each on one thread. The rows of both models' common tokens are held meanwhile.
    """

    known: GatheredRows
    donor: TensorSource
    matching: Matching
    _rows: list[Tensor] = field(default_factory=list["Tensor"], repr=False)

    @property
    def model(self) -> str:
        """Return the name of the model whose rows these are."""
        return self.known.model

    @property
    def dtype(self) -> str:
        """Return the dtype code of the model's tensor."""
        return self.known.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape: the donor's rows, the model's width."""
        return self.known.shape

    @property
    def nbytes(self) -> int:
        """Return the bytes of the rows and of the donor's tensor."""
        return self.known.nbytes + self.donor.nbytes

    @property
    def parts(self) -> tuple[Stored, ...]:
        """Return the stored parts of the model's tensor, then those of the donor's."""
        return (*self.known.parts, *self.donor.parts)

    def identity(self, digest_of: DigestOf) -> list[object]:
        """Return both tensors, the matching, and what decides the bits of products here."""
        decided = [VERSION, linear_algebra_kind(), self.matching.digest]
        return ["matched", *decided, self.known.identity(digest_of), self.donor.identity(digest_of)]

    def fill(self, fetch: Fetch, start: int, into: Tensor) -> None:
        """Fill `into`, flat, with the elements from `start` on."""
        self.known.fill(fetch, start, into)
        width, end = prod(self.shape[1:]), start + into.numel()
        made = self.matching.made
        first, last = np.searchsorted(made, [start // width, -(-end // width)]).tolist()
        if first == last:
            return
        with self.matching.lock:
            if not self._rows:
                self._rows.append(self._make(fetch, into))
        for number in range(first, last):
            row = int(made[number]) * width
            begin, stop = max(start, row), min(end, row + width)
            into[begin - start : stop - start] = self._rows[0][number, begin - row : stop - row]

    def _make(self, fetch: Fetch, like: Tensor) -> Tensor:
        """All rows of the matching, (rows, width) float32."""
        import torch

        atoms = _gather(self.donor, self.matching.theirs, fetch, like)
        targets = _gather(self.donor, self.matching.wanted, fetch, like)
        ours = _gather(self.known.own, self.matching.ours, fetch, like)
        rows = torch.empty((len(targets), ours.shape[1]), dtype=torch.float32)
        way, k = self.matching.way, self.matching.k
        rotation = Rotation(atoms, ours) if way.kind == LANDMARK_PCA else None
        held = atoms_looked_at(k) if way.kind == COMMON_INTERPOLATION else k
        step = targets_at_once(held, atoms.shape[1])

        def make(first: int) -> None:
            wanted = targets[first : first + step]
            if rotation is not None:
                rows[first : first + step] = rotation(wanted).float()
                return
            if way.kind == OMP:
                chosen, shares = matching_pursuit(wanted, atoms, k)
            else:
                chosen, shares = nearest_shares(wanted, atoms, k, way.scheme, way.distance)
            sums = torch.zeros((len(chosen), ours.shape[1]), dtype=torch.float64)
            for position in range(chosen.shape[1]):
                sums.addcmul_(shares[:, position, None], ours[chosen[:, position]].double())
            rows[first : first + step] = sums.float()

        with ThreadPoolExecutor(min(_MOST_THREADS, usable_cores()), "match") as pool:
            for _ in pool.map(make, range(0, len(targets), step)):
                pass
        return rows


def _gather(source: TensorSource, rows: NDArray[np.int32], fetch: Fetch, like: Tensor) -> Tensor:
    """Rows of a tensor, (rows, width) float32 on the CPU. Raises NonFiniteError for NaN and Inf."""
    import torch

    width = prod(source.shape[1:])
    gathered = GatheredRows(source, (source,), RowMap(np.zeros_like(rows), rows, {}))
    found = torch.empty((len(rows), width), dtype=torch.float32)
    step = max(1, _READ // width)
    for first in range(0, len(rows), step):
        count = min(step, len(rows) - first)
        block = torch.empty(count * width, dtype=torch.float32, device=like.device)
        gathered.fill(fetch, first * width, block)
        found[first : first + count] = block.cpu().view(count, width)
    if not bool(torch.isfinite(found).all()):
        raise NonFiniteError(
            f"model '{source.model}': its embeddings hold NaN or infinity, so no row can be made of"
            " them; restore the file from its source, or leave the model out"
        )
    return found
