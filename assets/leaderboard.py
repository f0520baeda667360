"""leaderboard: every live model and candidate, side by side."""

import dagster as dg

from assets.display import of_artifact, picture
from assets.failures import RETRY_CRASHES, clear_failures
from assets.run_settings import RunSettings
from assets.work.ranking import LEADERBOARD, Contest, rank


def build_leaderboard(
    contest: Contest, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """The asset `leaderboard`. Partitions whose model or recipe left the catalog are left out."""
    scores = [dg.AssetKey(["benchmark_scores", recipe.name]) for recipe in contest.recipes]

    @dg.asset(
        name=LEADERBOARD,
        deps=[dg.AssetKey("model_scores"), *scores],
        group_name="results",
        automation_condition=condition,
        code_version=code_version,
        retry_policy=RETRY_CRASHES,
        kinds={"markdown"},
        description="Each merged candidate against the base model, every expert and the plain"
        " average. The coefficient is chosen on validation items, the numbers are of test items,"
        " with standard errors and paired tests.",
    )
    @clear_failures()
    def leaderboard(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from eval_ops.plots import leaderboard_plot
        from eval_ops.scores.leaderboard import to_markdown

        board = rank(settings.store(), contest, context.run.run_id)
        shown = {
            f"{suite}: {what}": value
            for suite, rows in board.tables.items()
            if rows
            for what, value in (
                ("table", dg.MetadataValue.md(to_markdown(rows))),
                ("plot", picture(leaderboard_plot(rows))),
                ("first", rows[0].label),
                ("best test mean", rows[0].mean.value),
            )
        }
        return dg.MaterializeResult(
            data_version=dg.DataVersion(board.artifact.digest),
            metadata={
                **shown,
                **of_artifact(board.artifact, False),
                "candidates without scores": board.unscored,
            },
        )

    return leaderboard
