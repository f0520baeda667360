"""How much the best of the tried candidates flatters itself. Knows no Dagster."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from assets.work.ranking.collecting import UNREADABLE
from eval_ops.errors import PairingError

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import Entry


def optimism_of(tried: Sequence["Entry"]) -> str | None:
    """Say it of entries that are the candidates of one recipe; None without validation items.

    None too where answers of one of them cannot be read, which the leaderboard tells.
    """
    from eval_ops.scores.leaderboard import optimism

    try:
        return optimism([entry.scores for entry in tried]).to_text()
    except (PairingError, *UNREADABLE):
        return None
    finally:
        for entry in tried:
            entry.scores.forget_samples()
