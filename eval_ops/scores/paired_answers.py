"""The values of two checkpoints on the same items, side by side."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from eval_ops.errors import PairingError
from eval_ops.scores.scores import SuiteScores

Differences = NDArray[np.float64]


class Pair(NamedTuple):
    """Both sides' values of a benchmark's items, and the items' groups, () where none has one."""

    ours: Differences
    theirs: Differences
    groups: Sequence[str]


def chosen_benchmarks(scores: SuiteScores, benchmarks: Collection[str] | None) -> list[str]:
    """Return the benchmarks asked for, in order; PairingError where a suite has none of a name."""
    if benchmarks is None:
        return list(scores.benchmarks)
    unknown = sorted(set(benchmarks) - set(scores.benchmarks))
    if unknown or not benchmarks:
        raise PairingError(
            f"suite '{scores.suite}' has no benchmark {', '.join(unknown) or '(none was named)'}; "
            f"it has {', '.join(scores.benchmarks)}"
        )
    return [name for name in scores.benchmarks if name in benchmarks]


def paired_answers(ours: SuiteScores, theirs: SuiteScores, benchmark: str, split: str) -> Pair:
    """Return both sides' values of a benchmark, in the order of the sorted item ids.

    Raises PairingError where an item was scored on one side only.
    """
    first, second = ours.values(benchmark, split), theirs.values(benchmark, split)
    if first.keys() != second.keys():
        stray = sorted(first.keys() ^ second.keys())
        raise PairingError(
            f"benchmark '{benchmark}' ({split}): {len(stray)} items were scored on one side only "
            f"(for example '{stray[0]}'); score both checkpoints on the same suite"
        )
    items = sorted(first)
    passages = ours.groups(benchmark, split)
    groups = [passages.get(item, "") for item in items] if passages else ()
    return Pair(np.array([first[i] for i in items]), np.array([second[i] for i in items]), groups)
