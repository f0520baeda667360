"""A reduced set chosen from the store's own answers on a suite. Knows no Dagster."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.scoring.scoring import SCORES, read_scores
from eval_ops.errors import PairingError, ScoresError
from eval_ops.scores.answers import Screen, score_matrix, screen_of
from resources.errors import DamagedArtifactError, MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore

MOST_KNOWN = 128
"""Models whose answers a reduced set is chosen from, models first; more teach next to nothing, and
all their answers are in memory at once."""
CHOOSING = "validation"


def screen_from_store(
    store: "ArtifactStore",
    suite: "Suite",
    models: Sequence[str],
    recipes: Sequence[str],
    share: float,
) -> Screen:
    """Choose a reduced set of the validation items from whole scores on a suite.

    `models` and what `recipes` made are looked at. Raises PairingError where too few are known, or
    the suite has no validation items.
    """
    scores: dict[str, SuiteScores] = {}
    groups: dict[str, str] = {}
    assets = [(f"model_scores/{suite.name}", models), *((names.scores(r), None) for r in recipes)]
    for asset, wanted in assets:
        table = names.table_of(store, asset, wanted)
        for partition, ref in sorted(table.refs.items(), key=lambda each: str(each[0])):
            if ref.kind != SCORES or (wanted is not None and partition not in wanted):
                continue
            try:
                artifact = store.get(SCORES, ref.digest)
                if artifact.manifest["suite"]["digest"] != suite.digest:
                    continue
                name = f"{asset} [{partition}]"
                scores[name] = read_scores(artifact)
            except (DamagedArtifactError, MissingArtifactError, ScoresError, KeyError):
                continue  # told by the leaderboard; a choice of items needs none of them
            experts = str(partition).partition("|")[2]
            groups[name] = experts or name
            if len(scores) >= MOST_KNOWN:
                break
    if not scores:
        raise PairingError(f"suite '{suite.name}': nothing is scored on it yet")
    return screen_of(score_matrix(scores).split(CHOOSING), share, groups)
