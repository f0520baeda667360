"""Rows of a router fitted to the routing of others on the same inputs: HARC (2606.03391).

Routers of merged models are no averages: softmax and top-k are discontinuous. The rows W are those
that route what the merged model computes as each source would, weighed by how much its odds change:

    W* = argmin Σ_i mean_x (W x − t_i(x))ᵀ H_i(x) (W x − t_i(x))
    t_i(x) = W_i x,  p = softmax(t_i(x)),  H_i(x) = diag(p) − p pᵀ

x are the inputs of the merged model's router on the texts of source i. Where moe_experts were
merged, t has one entry for each group: the log of the sum of exp over its members' logits, so that
a group is wished for as often as its members were together.

The normal equations A vec(W) = b are never built: A(V) = Σ_i mean_x [(p⊙z − p (p·z)) xᵀ], z = V x.
Off the diagonal they are shrunk, γA + (1 − γ) diag(A), and solved by conjugate gradients from the
merged rows on. Adding one vector to all rows changes no routing, and it is not added.
"""

# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SHRINKAGE = 0.9  # γ of the paper
MOST_ITERATIONS = 1000
TOLERANCE = 1e-6
"""Of the residual's length, by that of the right side."""
PIECE = 4096
"""Tokens that are in float64 at a time."""


class Seen(NamedTuple):
    """What a router was given on one source's texts, and how the source would route it.

    `inputs` are [tokens, hidden], in float32. `rows` is the source's router, [experts, hidden];
    `groups` are its moe_experts that became one, in the order of the fitted rows, or None.
    """

    inputs: "Sequence[Tensor]"
    rows: "Tensor"
    groups: Sequence[Sequence[int]] | None = None

    @property
    def tokens(self) -> int:
        """Return the number of tokens."""
        return sum(len(each) for each in self.inputs)

    def pieces(self) -> "Iterator[tuple[Tensor, Tensor]]":
        """Yield inputs [n, hidden] and the logits that are wished for [n, rows], in float64."""
        rows = self.rows.double()
        for each in self.inputs:
            for part in each.split(PIECE):
                inputs = part.double()
                yield inputs, together(inputs @ rows.T, self.groups)


def together(logits: "Tensor", groups: Sequence[Sequence[int]] | None) -> "Tensor":
    """Return the logits of groups, [tokens, groups]: log Σ exp over the members' [tokens, experts].

    Without groups they are the logits as they are.
    """
    if groups is None:
        return logits
    import torch

    parts = [logits[:, list(group)].logsumexp(dim=-1) for group in groups]
    return torch.stack(parts, dim=-1)


def divergence(rows: "Tensor", sources: Sequence[Seen]) -> float:
    """Return the mean KL divergence of a router's odds from those that sources wish for, in nats.

    Each source counts alike, whatever the number of its tokens.
    """
    total = 0.0
    for source in sources:
        found = 0.0
        for inputs, wanted in source.pieces():
            log_p, log_q = wanted.log_softmax(-1), (inputs @ rows.double().T).log_softmax(-1)
            found += float((log_p.exp() * (log_p - log_q)).sum())
        total += found / source.tokens
    return total / len(sources)


def fitted_router(start: "Tensor", sources: Sequence[Seen]) -> "Tensor":
    """Return rows, [experts, hidden] in float64, fitted from the merged ones in `start` on.

    Where these route as every source does, they are returned bit for bit.
    """
    import torch

    rows = start.double()
    right, diagonal = torch.zeros_like(rows), torch.zeros_like(rows)
    for source in sources:
        own = torch.zeros_like(rows)
        wished = torch.zeros_like(rows)
        for inputs, wanted in source.pieces():
            odds = wanted.softmax(-1)
            off = wanted - inputs @ rows.T
            wished += _weighed(odds, off).T @ inputs
            own += (odds * (1 - odds)).T @ inputs.square()
        own /= source.tokens
        diagonal += own
        right += SHRINKAGE * wished / source.tokens
        if source.groups is None:  # else what is wished for is no linear function of the inputs
            right += (1 - SHRINKAGE) * own * (source.rows.double() - rows)

    def applied(change: "Tensor") -> "Tensor":
        total = (1 - SHRINKAGE) * diagonal * change
        for source in sources:
            made = torch.zeros_like(change)
            for inputs, wanted in source.pieces():
                made += _weighed(wanted.softmax(-1), inputs @ change.T).T @ inputs
            total += SHRINKAGE * made / source.tokens
        return total

    scale = torch.where(diagonal > 0, diagonal, 1.0)
    return rows + solved(applied, right, scale)


def _weighed(odds: "Tensor", off: "Tensor") -> "Tensor":
    """H off, by token: [tokens, experts]."""
    return odds * (off - (odds * off).sum(dim=-1, keepdim=True))


def solved(applied: "Callable[[Tensor], Tensor]", right: "Tensor", scale: "Tensor") -> "Tensor":
    """Return V with A(V) = right by conjugate gradients from 0 on, preconditioned by 1 / scale.

    A is symmetric and positive. It ends at TOLERANCE or after MOST_ITERATIONS.
    """
    import torch

    found = torch.zeros_like(right)
    left = right.clone()
    wanted = float(right.norm()) * TOLERANCE
    direction = left / scale
    energy = float((left * direction).sum())
    for _ in range(MOST_ITERATIONS):
        if float(left.norm()) <= wanted or energy == 0.0:
            break
        image = applied(direction)
        step = energy / float((direction * image).sum())
        found += step * direction
        left -= step * image
        eased = left / scale
        new = float((left * eased).sum())
        direction = eased + (new / energy) * direction
        energy = new
    return found
