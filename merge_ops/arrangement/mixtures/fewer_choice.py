"""Which moe_experts of a layer stay, and which are merged into one, told from statistics alone.

reap        the largest saliency stays: the mean, over the tokens routed to it, of weight × ‖output‖
            (Lasby et al. 2025, 2510.13999)
frequency   the most tokens stay
hc_smoe     clusters by average linkage over distances of mean outputs, each merged by its tokens
            (Chen et al. 2024, 2410.08589)
m_smoe      the most used stay, and every other one joins that whose router logits are most like its
            own; each group is merged by its tokens (Li et al. 2023, 2310.01334). The paper shares
            its groups out over all layers, which no config can say; here each layer has as many.
            Neurons are matched before the mean (matched_neurons.py), as in the paper; its code for
            Mixtral leaves that out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.calibration.moe_statistics import LayerStatistics

Group = tuple[tuple[int, float], ...]
"""The moe_experts that become one, each with its share; the first is the most used one."""


def groups_of(layer: LayerStatistics, keep: int, method: str) -> tuple[Group, ...]:
    """Return the `keep` groups that a layer's moe_experts become, in the order of their firsts.

    Those of a pruning method have one member each. Shares of a group add up to 1; they are its
    members' shares of tokens, or equal where no token went to any. Of equal numbers the lower
    moe_expert counts.
    """
    if method in ("reap", "frequency"):
        order = np.argsort(-_score(layer, method), kind="stable")[:keep]
        return tuple(((int(each), 1.0),) for each in sorted(order))
    if method == "hc_smoe":
        members = _clusters(layer.distances, keep)
    else:
        members = _joined(layer.tokens, layer.similarity, keep)
    return tuple(sorted((_shared(each, layer.tokens) for each in members), key=lambda g: g[0][0]))


def kept_share(layer: LayerStatistics, groups: tuple[Group, ...]) -> float:
    """Return the share of the router's weight that went to moe_experts in any group."""
    total = float(layer.weights.sum())
    kept = sum(float(layer.weights[member]) for group in groups for member, _ in group)
    return kept / total if total > 0 else 1.0


def _score(layer: LayerStatistics, method: str) -> NDArray[np.float64]:
    return layer.saliency if method == "reap" else layer.tokens


def _shared(members: list[int], tokens: NDArray[np.float64]) -> Group:
    """The members with their shares, the most used one first."""
    used = np.array([tokens[each] for each in members], dtype=np.float64)
    shares = used / used.sum() if used.sum() > 0 else np.full(len(members), 1 / len(members))
    order: list[int] = np.argsort(-used, kind="stable").tolist()
    return tuple((members[at], float(shares[at])) for at in order)


def _clusters(distances: NDArray[np.float64], keep: int) -> list[list[int]]:
    """`keep` clusters by average linkage: the nearest two are joined until so many are left."""
    clusters = [[each] for each in range(len(distances))]
    between = np.array(distances, dtype=np.float64)
    np.fill_diagonal(between, np.inf)
    while len(clusters) > keep:
        first, second = divmod(int(between.argmin()), len(clusters))
        first, second = min(first, second), max(first, second)
        sizes = len(clusters[first]), len(clusters[second])
        mean = (sizes[0] * between[first] + sizes[1] * between[second]) / sum(sizes)
        between[first], between[:, first] = mean, mean
        between[first, first] = np.inf
        between = np.delete(np.delete(between, second, axis=0), second, axis=1)
        clusters[first] = sorted(clusters[first] + clusters[second])
        del clusters[second]
    return clusters


def _joined(
    tokens: NDArray[np.float64], similarity: NDArray[np.float64], keep: int
) -> list[list[int]]:
    """Groups around the `keep` most used; every other one joins the most similar of these."""
    firsts = sorted(int(each) for each in np.argsort(-tokens, kind="stable")[:keep])
    groups = {first: [first] for first in firsts}
    for other in range(len(tokens)):
        if other not in groups:
            groups[firsts[int(np.argmax(similarity[other, firsts]))]].append(other)
    return [sorted(each) for each in groups.values()]
