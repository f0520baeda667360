"""<recipe>/champion: the checkpoint to use, changed only when the evidence says so."""

from typing import Any

import dagster as dg

from assets.run_settings import RunSettings
from assets.team_asset import team_asset
from assets.work import names
from assets.work.collecting import Contest, RankedRecipe
from assets.work.ranking import LEADERBOARD, Held, Promotion, promote
from assets.work.virtual_checkpoints import bytes_of

CHECK = "could_be_judged"
"""Fails where what the candidates are compared with cannot be read; the champion stays."""


def build_champion(
    contest: Contest, recipe: RankedRecipe, code_version: str, condition: dg.AutomationCondition
) -> dg.AssetsDefinition:
    """Build the champion of one recipe; `code_version` changes with its gate."""

    @team_asset(
        names.champion(recipe.name),
        condition,
        deps=[dg.AssetDep(LEADERBOARD)],
        group=recipe.name,
        code_version=code_version,
        kind="pytorch",
        checks=[CHECK],
        description=f"Champion: the best checkpoint of recipe {recipe.name} that passed its gate."
        " No benchmark is significantly below the best single expert by more than the allowed loss,"
        " and the mean is significantly above the champion before it. Otherwise that one stays. It"
        " is written when it is promoted, unless the recipe says `keep: none`.",
    )
    def champion(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        promotion = promote(
            settings.store(), contest, recipe, settings.device, settings.threads,
            context.run.run_id, settings.stream(),
        )  # fmt: skip
        digest = promotion.champion.digest if promotion and promotion.champion else "none"
        unread = promotion.reason if isinstance(promotion, Held) and promotion.fault else None
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest),
            metadata=_metadata(promotion),
            check_results=[
                dg.AssetCheckResult(
                    check_name=CHECK,
                    passed=unread is None,
                    metadata={"problems": unread or "none"},
                )
            ],
        )

    return champion


def _metadata(promotion: Promotion | Held | None) -> dict[str, Any]:
    if promotion is None:
        return {"decision": "no candidate is scored yet"}
    if isinstance(promotion, Held):
        stays = promotion.champion.digest if promotion.champion else "none yet"
        return {"decision": f"the champion stays: {promotion.reason}", "champion": stays}
    decision, champion = promotion.decision, promotion.champion
    verdict = decision.to_markdown() if decision is not None else promotion.reasons[0]
    shown = {
        "decision": dg.MetadataValue.md(verdict),
        "promoted": promotion.changed,
        "candidate": promotion.candidate.label,
        "candidate's test mean": promotion.candidate.scores.mean().value,
        "champion": champion.digest if champion else "none yet",
    }
    if champion is None:
        return shown
    if champion.virtual:
        return {**shown, "virtual": True, "bytes when it is written": bytes_of(champion)}
    return {**shown, "uri": dg.MetadataValue.path(champion.uri), "bytes": champion.nbytes}
