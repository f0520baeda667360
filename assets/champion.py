"""champion/<recipe>: the checkpoint to use, changed only when the evidence says so."""

from typing import Any

import dagster as dg

from assets.failures import RETRY_CRASHES, clear_failures
from assets.run_settings import RunSettings
from assets.work.ranking import LEADERBOARD, Contest, Promotion, RankedRecipe, promote


def build_champion(
    contest: Contest, recipe: RankedRecipe, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """The champion of one recipe; `code_version` changes with its gate."""

    @dg.asset(
        key=["champion", recipe.name],
        deps=[LEADERBOARD],
        group_name=recipe.name,
        automation_condition=condition,
        code_version=code_version,
        retry_policy=RETRY_CRASHES,
        kinds={"pytorch"},
        description=f"Champion: the best checkpoint of recipe {recipe.name} that passed its gate."
        " No benchmark is significantly below the best single expert by more than the allowed loss,"
        " and the mean is significantly above the champion before it. Otherwise that one stays.",
    )
    @clear_failures()
    def champion(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        promotion = promote(
            settings.store(), contest, recipe, settings.device, settings.threads, context.run.run_id
        )
        if promotion is None:
            waiting = {"decision": "no candidate is scored yet"}
            return dg.MaterializeResult(data_version=dg.DataVersion("none"), metadata=waiting)
        crowned = promotion.champion.digest if promotion.champion else "none"
        return dg.MaterializeResult(
            data_version=dg.DataVersion(crowned), metadata=_metadata(promotion)
        )

    return champion


def _metadata(promotion: Promotion) -> dict[str, Any]:
    decision, crowned = promotion.decision, promotion.champion
    if decision is None:
        verdict = dg.MetadataValue.md(promotion.reasons[0])
    else:
        verdict = dg.MetadataValue.md(decision.to_markdown())
    shown = {
        "decision": verdict,
        "promoted": promotion.changed,
        "candidate": promotion.candidate.label,
        "candidate's test mean": promotion.candidate.scores.mean().value,
        "champion": crowned.digest if crowned else "none yet",
    }
    if crowned is None:
        return shown
    return {**shown, "uri": dg.MetadataValue.path(crowned.uri), "bytes": crowned.nbytes}
