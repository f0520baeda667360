"""The leaderboard's page in Dagster: intervals stay whole, and of a long table the end is told."""

from pathlib import Path

import dagster as dg
import pytest

from assets import leaderboard
from assets.leaderboard import DASH, JOINER, build_leaderboard
from assets.run_settings import RunSettings
from tests.assets.work.made_up_store import ScoredStore


def test_intervals_are_not_broken_and_hidden_rows_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ScoredStore(tmp_path, items=20)
    made.everything({"x=0": 0.9})
    monkeypatch.setattr(leaderboard, "MOST_ROWS", 3)
    asset = build_leaderboard(made.contest, "1", dg.AutomationCondition.eager())
    settings = RunSettings(
        store_uri=made.store.uri, catalog_folder="", catalog="team", device="cpu"
    )
    result = dg.materialize([asset], resources={"settings": settings})
    (event,) = result.asset_materializations_for_node("leaderboard")
    text = str(event.metadata["one: table"].value)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + 3
    assert "1 more rows are not shown; `ronghe leaderboard` shows them all." in text
    assert f"90.0 (69.9{DASH}{JOINER}97.2)" in rows[2]
    assert text.count(DASH) == text.count(f"{DASH}{JOINER}")
    assert {"one: plot", "one: retention, drawn"} <= set(event.metadata)
