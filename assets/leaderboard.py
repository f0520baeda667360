"""leaderboard: every live model and candidate, side by side."""

from typing import Any

import dagster as dg

from assets.display import of_artifact, picture
from assets.run_settings import RunSettings
from assets.team_asset import team_asset
from assets.work import names
from assets.work.ranking import LEADERBOARD, Contest, Leaderboard, Sweep, rank

MOST_ROWS = 200
"""Rows of the table in Dagster, which keeps each for ever; the artifact has all."""


def build_leaderboard(
    contest: Contest, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the asset `leaderboard`. What left the catalog is left out of it."""
    scored = ["model_scores", *(names.scores(recipe.name) for recipe in contest.recipes)]

    @team_asset(
        LEADERBOARD,
        condition,
        deps=[dg.AssetDep(dg.AssetKey.from_user_string(name)) for name in scored],
        group="results",
        code_version=code_version,
        kind="markdown",
        description="Each merged candidate against the base model, every expert and the plain"
        " average. The coefficient is chosen on validation items, the numbers are of test items,"
        " with standard errors and paired tests.",
    )
    def leaderboard(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        board = rank(settings.store(), contest, context.run.run_id)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(board.artifact.digest), metadata=_metadata(board)
        )

    return leaderboard


def _metadata(board: Leaderboard) -> dict[str, Any]:
    from eval_ops.plots import leaderboard_plot
    from eval_ops.scores.leaderboard import to_markdown

    shown: dict[str, Any] = {}
    for suite, rows in board.tables.items():
        if rows:
            shown[f"{suite}: table"] = dg.MetadataValue.md(to_markdown(rows, MOST_ROWS))
            shown[f"{suite}: plot"] = picture(leaderboard_plot(rows))
            shown[f"{suite}: first"] = rows[0].label
            shown[f"{suite}: best test mean"] = rows[0].mean.value
    shown |= {f"sweep of {sweep.recipe}": picture(_drawn(sweep)) for sweep in board.sweeps}
    return {
        **shown,
        **of_artifact(board.artifact, False),
        "candidates without scores": board.unscored,
    }


def _drawn(sweep: Sweep) -> bytes:
    """Draw a sweep's means over its coefficients, as a PNG."""
    from eval_ops.plots import coefficient_plot

    hidden = f" ({sweep.hidden} more points not shown)" if sweep.hidden else ""
    return coefficient_plot(
        f"{sweep.recipe} {sweep.expert_set}{hidden}", sweep.points, sweep.chosen
    )
