"""<recipe>/champion: the checkpoint to use, changed only when the evidence says so."""

from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.evidence.gate_checks import NAMES, gate_results
from assets.frame.display import MetadataMap, number, size, table
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.withdrawal_checks import check_whole, spec
from assets.work import names
from assets.work.merging.virtual_checkpoints import bytes_of
from assets.work.ranking.collecting import Contest, RankedRecipe
from assets.work.ranking.ranking import LEADERBOARD, Held, Promotion, promote
from assets.work.records.announcing import Announce, event_of
from assets.work.records.champion_history import (
    BECAUSE,
    DEMOTED,
    ChampionState,
    champion_state,
    history_rows,
)
from assets.work.records.demotion import Demotion
from assets.work.records.noted_changes import note_change
from assets.work.records.withdrawing import event_of_demotion

if TYPE_CHECKING:
    from resources.store import Artifact, ArtifactStore, Ref

GROUP = "champions"
"""Of all recipes: in a recipe's own group they would close a circle around the leaderboard's."""
CHECK = "could_be_judged"
"""Fails where what the candidates are compared with cannot be read; the champion stays.

It warns where there is nothing to judge: no champion is green without any score."""
LICENCES = "licences_go_together"
"""Fails where they alone keep a candidate from becoming champion."""
UNSCORED = "no candidate of this recipe is scored"


def build_champion(
    contest: Contest,
    recipe: RankedRecipe,
    code_version: str,
    condition: dg.AutomationCondition,
    announce: Announce | None = None,
) -> dg.AssetsDefinition:
    """Build the champion of one recipe; `code_version` changes with its gate.

    `announce` is told of promotions and refusals; what it says in return is a warning.
    """

    @team_asset(
        names.champion(recipe.name),
        condition,
        deps=[dg.AssetDep(LEADERBOARD)],
        group=GROUP,
        code_version=code_version,
        kind="pytorch",
        checks=[CHECK, LICENCES, *NAMES, spec(names.champion(recipe.name))],
        description=f"Champion: the best checkpoint of recipe {recipe.name} that passed its gate."
        " No benchmark is significantly below the best single expert by more than the allowed loss,"
        " and the mean is significantly above the champion before it. Otherwise that one stays. It"
        " is written when it is promoted, unless the recipe says `keep: none`.",
    )
    def champion(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        store, run = settings.store(), context.run.run_id
        before = names.ref_of(store, names.champion(recipe.name))
        promotion = promote(
            store, contest, recipe, settings.device, settings.threads, run, settings.stream()
        )
        state = champion_state(store, recipe.name)
        event = _event(settings.catalog, recipe, promotion, before.digest if before else None)
        gone = _demotion(store, recipe, before)
        for each in (gone, event):
            if each is None:
                continue
            told = announce(each) if announce is not None else None
            for problem in (told, note_change(store, each, run)):
                if problem is not None:
                    context.log.warning(problem)
        digest = promotion.champion.digest if promotion and promotion.champion else "none"
        return dg.MaterializeResult(
            data_version=dg.DataVersion(digest),
            metadata={**_metadata(store, recipe.name, promotion), **metadata_of_state(state)},
            check_results=[
                _check(promotion),
                _licences(promotion),
                *gate_results(promotion),
                check_whole(store, names.champion(recipe.name)),
            ],
        )

    return champion


def metadata_of_state(state: ChampionState | None) -> MetadataMap:
    """Show what changed the champion and why, and whether it is what the recipe makes today."""
    if state is None:
        return {}
    return {"stale": state.stale or "no", "history": table(history_rows(state.ref))}


def _demotion(
    store: "ArtifactStore", recipe: RankedRecipe, before: "Ref | None"
) -> dict[str, Any] | None:
    """What a webhook is told where this run has demoted the champion of `before`; None else."""
    now = names.history_of(store, names.champion(recipe.name))
    if before is None or now is None:
        return None
    since = now.history[len(before.history) :]
    entry = next((e for e in since if e.fields.get(DEMOTED) == before.digest), None)
    if entry is None:
        return None
    champion = None if entry.fields.get("vacant") else entry.digest
    because = str(entry.fields.get(BECAUSE))
    demotion = Demotion(recipe.name, before.digest, champion, because)
    return event_of_demotion(store, demotion, recipe.suite)


def _event(
    catalog: str, recipe: RankedRecipe, promotion: Promotion | Held | None, before: str | None
) -> dict[str, Any] | None:
    """What a webhook is told: a promotion, or that the gate refused one; None for neither."""
    if not isinstance(promotion, Promotion) or promotion.decision is None:
        return None
    candidate = promotion.candidate
    return event_of(
        "promotion" if promotion.changed else "refusal",
        recipe.name,
        recipe.suite,
        catalog or None,
        candidate={
            "digest": candidate.digest,
            "experts": candidate.expert_set,
            "coefficient": candidate.coefficient,
            "test_mean": promotion.decision.candidate_mean,
        },
        champion=promotion.champion.digest if promotion.champion else None,
        before=before,
        reasons=promotion.reasons,
    )


def _check(promotion: Promotion | Held | None) -> dg.AssetCheckResult:
    severity, problem = dg.AssetCheckSeverity.WARN, None
    if promotion is None:
        problem = f"{UNSCORED}; see its scores, and its merged checkpoints"
    elif isinstance(promotion, Held) and (promotion.fault or promotion.champion is None):
        problem = promotion.reason
        severity = dg.AssetCheckSeverity.ERROR if promotion.fault else severity
    return dg.AssetCheckResult(
        check_name=CHECK,
        passed=problem is None,
        severity=severity,
        metadata={"problems": problem or "none"},
    )


def _licences(promotion: Promotion | Held | None) -> dg.AssetCheckResult:
    problem = promotion.reason if isinstance(promotion, Held) and promotion.licences else None
    return dg.AssetCheckResult(
        check_name=LICENCES, passed=problem is None, metadata={"problems": problem or "none"}
    )


def _metadata(
    store: "ArtifactStore", recipe: str, promotion: Promotion | Held | None
) -> dict[str, Any]:
    """What was decided, who the champion is and how to load it, and who wanted to be."""
    if promotion is None:
        return {"champion": "none", "decision": f"none: {UNSCORED}"}
    of_champion = _of_champion(store, recipe, promotion.champion)
    if isinstance(promotion, Held):
        return {"decision": f"the champion stays: {promotion.reason}", **of_champion}
    decision = promotion.decision
    verdict = decision.to_markdown() if decision is not None else promotion.reasons[0]
    return {
        "decision": dg.MetadataValue.md(verdict),
        "promoted": promotion.changed,
        **of_champion,
        "candidate": promotion.candidate.label,
        "candidate's test mean": number(promotion.candidate.scores.mean().value),
        "optimism": promotion.optimism or "told of a new champion alone",
    }


def _of_champion(
    store: "ArtifactStore", recipe: str, champion: "Artifact | None"
) -> dict[str, Any]:
    """The champion by name, as its ref has it since it was promoted."""
    ref = names.ref_of(store, names.champion(recipe))
    if champion is None or ref is None:
        return {"champion": "none yet"}
    said = ref.fields
    experts, coefficient = str(said.get("experts") or ""), str(said.get("coefficient") or "")
    point = f" at {coefficient}" if coefficient not in ("", "default") else ""
    return {
        "champion": f"{recipe}{point}: {experts or 'no experts'}",
        "recipe": recipe,
        "expert set": experts or "none",
        "coefficient": coefficient or "default",
        "test mean when it was promoted": number(said.get("test_mean")),
        "champion since": ref.current.at,
        "how to load it": dg.MetadataValue.md(_loading(store, recipe)),
        "digest": champion.digest,
        **_of_bytes(champion),
    }


def _of_bytes(champion: "Artifact") -> dict[str, Any]:
    """Where the champion lies and how large it is; of a virtual one, how large it would be."""
    if champion.virtual:
        return {"virtual": True, "bytes when it is written": bytes_of(champion)}
    uri = dg.MetadataValue.path(champion.location)
    return {"uri": uri, "size": size(champion.nbytes), "bytes": champion.nbytes}


def _loading(store: "ArtifactStore", recipe: str) -> str:
    """Python that loads whatever is the champion then, from wherever the store lies."""
    from merge_ops.provenance.markdown import fenced

    room = type(store).__module__.rpartition(".")[0]  # resources.store, or below ronghe
    catalog = store.namespace.name
    of_catalog = f", catalog={catalog!r}" if catalog is not None else ""
    lines = [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        f"from {room} import ArtifactStore",
        "",
        f"store = ArtifactStore.open({store.uri!r}{of_catalog})",
        f"folder = store.resolve({names.champion(recipe)!r}).folder()",
        "model = AutoModelForCausalLM.from_pretrained(folder)",
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
    ]
    return "\n".join(fenced("\n".join(lines), "python"))
