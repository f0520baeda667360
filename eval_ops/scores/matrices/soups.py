"""Which models to put into a soup, from scores on validation items: greedy, and SoCE.

Both know no weights. Greedy (Wortsman et al. 2022, arXiv 2203.05482): models in the order of their
validation means; each stays if the soup with it is at least as good as without it. Whoever merges
and scores a soup is called for each try. SoCE, Soup of Category Experts (Maiti et al. 2025, arXiv
2511.13254): categories (benchmarks) that are weakly correlated over the models, one expert each,
and weights from a grid, the best of which is to be chosen on validation items.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import PairingError
from eval_ops.scores.matrices.matrix import ScoreMatrix, Values

THRESHOLD = 0.5
"""Categories of a lower absolute correlation than this are weakly correlated."""
STEP = 0.1
"""Between the weights of the grid, as in the paper."""
MOST_EXPERTS = 5
"""Category experts of one soup: the grid of more has over 715 points."""
LEAST_MODELS = 3
"""Of two models every correlation is 1 or −1, and says nothing."""


@dataclass(frozen=True)
class Tried:
    """One soup that was tried: its members, the one that was new, its value, and whether it stays.

    The value is that of validation items.
    """

    members: tuple[str, ...]
    added: str
    value: float
    kept: bool


@dataclass(frozen=True)
class GreedySoup:
    """The members of a greedy soup in the order they joined, and every soup that was tried."""

    members: tuple[str, ...]
    value: float
    tried: tuple[Tried, ...]


def greedy_order(matrix: ScoreMatrix) -> tuple[str, ...]:
    """Return the models by validation mean, the best first; of equals the first name."""
    known = matrix.split("validation")
    means = np.round(known.means(), 12)
    pairs = sorted(zip(-means, known.models, strict=True))
    return tuple(name for _, name in pairs)


def greedy_soup(
    matrix: ScoreMatrix, value_of: Callable[[tuple[str, ...]], float], most: int | None = None
) -> GreedySoup:
    """Build a soup greedily; `value_of` merges and scores members on validation items.

    It is not asked for single models, which are in the matrix. `most` bounds the members.
    """
    order = greedy_order(matrix)
    known = matrix.split("validation")
    members = order[:1]
    value = float(known.means()[known.model(order[0])])
    tried = [Tried(members, order[0], value, True)]
    for name in order[1:]:
        if most is not None and len(members) >= most:
            break
        with_it = (*members, name)
        reached = float(value_of(with_it))
        kept = reached >= value  # also where NaN was reached, which is never kept
        tried.append(Tried(with_it, name, reached, kept))
        if kept:
            members, value = with_it, reached
    return GreedySoup(members, value, tuple(tried))


@dataclass(frozen=True)
class CategorySoup:
    """What SoCE chose: the expert of each weakly correlated category, and the correlations.

    `experts` maps categories to models. `members` are these models, each once, sorted.
    """

    experts: Mapping[str, str]
    members: tuple[str, ...]
    categories: tuple[str, ...]
    correlations: Values

    def weights(self, step: float = STEP) -> Iterator[tuple[float, ...]]:
        """Yield the grid's weights, one a member, each at least one step, which sum to 1.

        The equal ones come first.
        """
        count, parts = len(self.members), round(1 / step)
        equal = (1 / count,) * count
        yield equal
        for cuts in itertools.combinations(range(1, parts), count - 1):
            edges = (0, *cuts, parts)
            weights = tuple((b - a) / parts for a, b in itertools.pairwise(edges))
            if weights != equal:
                yield weights


def correlations(means: Values) -> NDArray[np.float64]:
    """Return Pearson's correlations of categories over models, for means [models, categories].

    A category in which all models are alike correlates with none: 0, and 1 with itself.
    """
    centred = means - means.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    alive = norms > 1e-12
    scaled = np.where(alive, centred / np.where(alive, norms, 1.0), 0.0)
    found = np.clip(scaled.T @ scaled, -1.0, 1.0)
    np.fill_diagonal(found, 1.0)
    return found


def category_soup(matrix: ScoreMatrix, threshold: float = THRESHOLD) -> CategorySoup:
    """Choose the experts of weakly correlated categories, by validation items.

    A category counts where its correlation with some other one is below `threshold` in absolute
    value. Where none is, the models rank alike everywhere, and the best of all is the only member.
    Raises PairingError for fewer than 3 models or 2 benchmarks.
    """
    known = matrix.split("validation")
    names = known.benchmarks
    if len(known.models) < LEAST_MODELS or len(names) < 2:
        raise PairingError(
            f"suite '{matrix.suite}' has {len(names)} benchmarks and scores of {len(known.models)} "
            f"models; category experts need 2 benchmarks and {LEAST_MODELS} models or more"
        )
    means = known.benchmark_means()
    found = correlations(means)
    weak = np.abs(found) < threshold
    # The most independent categories first, in case there are more than a grid has room for.
    lowest = np.where(weak, np.abs(found), np.inf).min(axis=1)
    chosen = [int(n) for n in np.argsort(lowest, kind="stable") if np.isfinite(lowest[n])]
    overall = greedy_order(matrix)
    experts: dict[str, str] = {}
    for place in chosen:
        best = max(overall, key=lambda name: round(float(means[known.model(name), place]), 12))
        if len({*experts.values(), best}) <= MOST_EXPERTS:
            experts[names[place]] = best
    members = tuple(sorted(set(experts.values()))) or overall[:1]
    return CategorySoup(experts, members, names, found)
