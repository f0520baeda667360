"""The leaderboard's page in Dagster: intervals stay whole, and of a long table the end is told."""

from pathlib import Path

import dagster as dg
import pytest

from assets.evidence import leaderboard
from assets.evidence.leaderboard import DASH, JOINER, build_leaderboard
from assets.frame.run_settings import RunSettings
from assets.work import names
from assets.work.ranking.published_evidence import findings_of, read_evidence
from assets.work.ranking.ranking import LEADERBOARD
from assets.work.ranking.store_matrix import BoardEvidence
from eval_ops.scores.matrices.matrix import score_matrix
from eval_ops.scores.matrices.routing import RoutingTable
from eval_ops.scores.scores import Sample, SuiteScores, summarize
from tests.assets.work.made_up_store import ScoredStore


def test_intervals_are_not_broken_and_hidden_rows_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ScoredStore(tmp_path, items=20)
    made.everything({"x=0": 0.9})
    monkeypatch.setattr(leaderboard, "MOST_ROWS", 3)
    paper = tmp_path / "paper.csv"
    paper.write_text("model,benchmark,score,n\nm,C-Eval,0.7,100\n", encoding="utf-8")
    object.__setattr__(made.contest, "imported", {"paper": paper})
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
    beside = event.metadata["imported scores"]
    assert isinstance(beside, dg.TableMetadataValue)
    (imported,) = beside.records
    assert imported.data == {
        "model": "m", "benchmark": "C-Eval", "score": 0.7, "95 % interval": "0.604 to 0.781",
        "n": 100, "source": "",
    }  # fmt: skip
    board = names.resolve(made.store, LEADERBOARD)
    assert board is not None
    found = read_evidence(made.store, board.digest)["one"]
    assert found["luck"] is None  # there is one candidate
    (interference,) = found["interference"]
    assert interference["merge"] == "ties e1+e2 x=0"
    assert {each["expert"] for each in found["retention"]} == {"e1", "e2"}
    assert found["fronts"] == []  # one benchmark, and nothing written
    assert read_evidence(made.store, "0" * 64) == {}  # of another leaderboard


def test_fronts_are_published_with_their_values(tmp_path: Path) -> None:
    samples = {
        name: [
            Sample(b, "test", f"{b}{n}", float(n < right), length=length)
            for b, right in (("a", a), ("b", b_right))
            for n in range(4)
        ]
        for name, a, b_right, length in (("x", 4, 1, 30), ("y", 1, 3, 10), ("z", 1, 1, 20))
    }
    matrix = score_matrix(
        {
            name: SuiteScores("two", "d" * 64, summarize(each[:4], "acc", "1"), tuple(each))
            for name, each in samples.items()
        }
    )
    routing = RoutingTable((), "x", 0.0, 0.0, "merge", {}, 0.95)
    pair, lengths = findings_of(BoardEvidence(routing, matrix))["fronts"]
    assert (pair["goals"], pair["units"]) == (["a", "b"], ["share", "share"])
    assert pair["front"] == [
        {"model": "x", "values": [1.0, 0.25]},
        {"model": "y", "values": [0.25, 0.75]},
    ]
    assert lengths["units"] == ["tokens", "share"]
    assert [each["model"] for each in lengths["front"]] == ["y", "x"]
