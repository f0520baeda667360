"""leaderboard: every live model and candidate, side by side."""

from functools import partial
from typing import Any

import dagster as dg

from assets.evidence.board_evidence import evidence as _evidence
from assets.evidence.imported_scores import imported_scores_key, imported_table
from assets.frame.display import drawn, number, of_artifact
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.work import names
from assets.work.ranking.collecting import Contest
from assets.work.ranking.imports import imported_beside
from assets.work.ranking.ranking import LEADERBOARD, Leaderboard, rank
from assets.work.ranking.sweeps import Sweep

CHECK = "everything_is_read"
"""Fails where scores, or names of them, cannot be read; what can be is ranked."""
MOST_ROWS, HEAD = 200, 2
"""Rows of the table in Dagster, which keeps each for ever, and its head; the artifact has all."""
DASH, JOINER = "\N{EN DASH}", "\N{WORD JOINER}"


def build_leaderboard(
    contest: Contest, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the asset `leaderboard`. What left the catalog is left out of it."""
    scored = ["model_scores", *(names.scores(recipe.name) for recipe in contest.recipes)]
    scored += [names.RUN_SCORES] if contest.runs else []
    scored += ["/".join(imported_scores_key(name).path) for name in contest.imported]

    @team_asset(
        LEADERBOARD,
        condition,
        deps=[dg.AssetDep(dg.AssetKey.from_user_string(name)) for name in scored],
        group="results",
        code_version=code_version,
        kind="markdown",
        checks=[CHECK],
        description="Each merged candidate against the base model, every expert and the plain"
        " average. The coefficient is chosen on validation items, the numbers are of test items,"
        " with 95 % intervals and paired tests.",
    )
    def leaderboard(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        run = context.run.run_id
        board = rank(settings.store(), contest, run)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(board.artifact.digest),
            metadata={
                **_metadata(context.log, board),
                **_evidence(context.log, settings.store(), contest, board, run),
            },
            check_results=[_check(board)],
        )

    return leaderboard


def _check(board: Leaderboard) -> dg.AssetCheckResult:
    told = "\n".join(f"{name}: {problem}" for name, problem in board.problems.items())
    return dg.AssetCheckResult(
        check_name=CHECK, passed=not board.problems, metadata={"problems": told or "none"}
    )


def _metadata(log: dg.DagsterLogManager, board: Leaderboard) -> dict[str, Any]:
    from eval_ops.plots import leaderboard_plot

    shown: dict[str, Any] = {}
    for suite, text in board.texts.items():
        rows = board.tables.get(suite, ())
        if rows or suite not in board.tables:
            shown[f"{suite}: table"] = dg.MetadataValue.md(_unbroken(_first_lines(text)))
        if rows:
            shown[f"{suite}: plot"] = drawn(log, LEADERBOARD, partial(leaderboard_plot, rows))
            shown[f"{suite}: first"] = rows[0].label
            shown[f"{suite}: best test mean"] = number(rows[0].mean.value)
    beside = imported_beside(board.artifact)
    if beside:
        shown["imported scores"] = imported_table(beside)
    for sweep in board.sweeps:
        shown[f"sweep of {sweep.recipe}"] = drawn(log, LEADERBOARD, partial(_drawn, sweep))
    return {
        **shown,
        **of_artifact(board.artifact, False),
        "candidates without scores": board.unscored,
        **({"candidates that were left early": board.left} if board.left else {}),
    }


def _first_lines(text: str) -> str:
    """A table's first rows, and what is said below it."""
    lines = text.split("\n")
    of_table = [number for number, line in enumerate(lines) if line.startswith("|")]
    hidden = of_table[MOST_ROWS + HEAD :]
    if not hidden:
        return text
    note = f"\n{len(hidden)} more rows are not shown; `ronghe leaderboard` shows them all."
    return "\n".join([*lines[: hidden[0]], note, *lines[hidden[-1] + 1 :]])


def _unbroken(text: str) -> str:
    """A table whose intervals stay on one line: browsers break lines behind a dash."""
    return text.replace(DASH, f"{DASH}{JOINER}")


def _drawn(sweep: Sweep) -> bytes:
    """Draw a sweep's means over its coefficients, as a PNG."""
    from eval_ops.plots import coefficient_plot

    hidden = f" ({sweep.hidden} more points not shown)" if sweep.hidden else ""
    return coefficient_plot(
        f"{sweep.recipe} {sweep.expert_set}{hidden}", sweep.points, sweep.chosen
    )
