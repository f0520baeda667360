"""imported_scores/<name>: scores from elsewhere, of one CSV of the catalog's folder scores/."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg

from assets.broken_parts import key_part
from assets.frame.display import table
from assets.frame.team_asset import team_asset
from assets.work import names


def imported_scores_key(name: str) -> dg.AssetKey:
    """Return the key of the asset of one file."""
    return dg.AssetKey([names.IMPORTED_SCORES, key_part(name)])


def imported_table(scores: Sequence[Mapping[str, Any]]) -> dg.TableMetadataValue:
    """Return a table of imported scores, the fields of an `ImportedScore` each."""
    return table(
        [
            {
                "model": each["model"],
                "benchmark": each["benchmark"],
                "score": round(each["score"], 4),
                "95 % interval": f"{each['low']:.3f} to {each['high']:.3f}",
                "n": each["n"],
                "source": each["source"],
            }
            for each in scores
        ]
    )


def build_imported_scores(
    name: str, file: Path, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the asset of one file; `code_version` is its digest."""

    @team_asset(
        "/".join(imported_scores_key(name).path),
        condition,
        group="results",
        code_version=code_version,
        kind="csv",
        description=f"Scores of {file.name}, from elsewhere. They stand on the leaderboard as"
        " imported, with an interval from their n; nothing is compared with them item by item.",
    )
    def imported_scores() -> dg.MaterializeResult:
        from assets.work.ranking.imports import load_imported

        rows = [vars(each) for each in load_imported(file)]
        return dg.MaterializeResult(
            data_version=dg.DataVersion(code_version),
            metadata={"scores": imported_table(rows), "number of scores": len(rows)},
        )

    return imported_scores
