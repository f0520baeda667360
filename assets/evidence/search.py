"""<recipe>/search: the best point of each expert set, looked for instead of listed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg

from assets.frame.batches import Report, each_partition
from assets.frame.display import drawn, of_artifact, table
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.merged_checkpoints import MergeRecipe
from assets.work import names
from assets.work.scoring.scoring import Scoring
from assets.work.scoring.souping import study_set
from assets.work.scoring.tries import SearchedSet

if TYPE_CHECKING:
    from eval_ops.search import Study

MOST_SHOWN = 50
"""Trials in the table of Dagster's page; all of them are in the study."""


def build_search(
    merge: MergeRecipe,
    suite: Path,
    code_version: str,
    sets: dg.PartitionsDefinition,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
    deps: Sequence[dg.AssetDep] = (),
) -> dg.AssetsDefinition:
    """Build the studies of one recipe, an expert set each. `deps` are further ones."""

    @team_asset(
        names.search(merge.name),
        condition,
        deps=[*merge.deps, *deps],
        partitions=sets,
        group=merge.name,
        code_version=code_version,
        gpu=op_tags,
        one_run=True,
        kind="pytorch",
        description=f"Search: coefficients of recipe {merge.name} are proposed, merged in memory"
        f" and scored on the validation items of suite {suite.stem}. No candidate is written. A"
        " search that was stopped goes on where it was.",
    )
    def search(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        from assets.work.suite_files import load_suite

        store = settings.store()
        scoring = Scoring(load_suite(suite), settings.device, settings.threads, context.run.run_id)

        def study(expert_set: str) -> Report:
            def tell(done: int, of: int) -> None:
                context.log.info(f"{expert_set}: trial {done} of {of}")

            found = study_set(store, merge.job(expert_set, {}), scoring, settings.stream(), tell)
            return found.artifact.digest, _metadata(context.log, merge.name, expert_set, found)

        return each_partition(context, study)

    return search


def _metadata(
    log: dg.DagsterLogManager, recipe: str, expert_set: str, found: SearchedSet
) -> dict[str, Any]:
    from eval_ops.plots import study_plot

    study, best, winner = found.study, found.study.best, found.study.winner
    assert best is not None
    assert winner is not None
    title = f"{recipe} {expert_set}"
    return {
        **of_artifact(found.artifact, found.found == len(study.trials)),
        "winner": _told(study),
        "its point": dg.MetadataValue.json(dict(winner.point)),
        "its validation objective": sum(winner.values or ()) / len(study.objectives),
        "its mean on test items": found.test.get(winner.number, 0.0),
        "its digest": winner.digest or "none",
        "best trial's validation objective": sum(best.values or ()) / len(study.objectives),
        "best trial's mean on test items": found.test.get(best.number, 0.0),
        "trials": len(study.trials),
        "trials that failed": sum(trial.values is None for trial in study.trials),
        "scores that were in the store": found.found,
        "ended by": study.ended or "trials",
        "seconds": round(found.seconds, 3),
        "on the front": len(study.front),
        "study": drawn(log, names.SEARCH, lambda: study_plot(title, study)),
        "best trials": table(_rows(found)),
    }


def _told(study: "Study") -> str:
    """Say which point was taken, and why."""
    best = study.best
    assert best is not None
    if study.centre is None:
        return f"trial {best.number}, the best"
    if study.centre_wins:
        return f"the centre of the trials that are about as good as the best one, {best.number}"
    why = study.centre.problem or "the centre of those about as good is worse"
    return f"trial {best.number}, the best: {why}"


def _rows(found: SearchedSet) -> list[dict[str, Any]]:
    study, front = found.study, {trial.number for trial in found.study.front}
    every = [*study.trials, *([study.centre] if study.centre is not None else [])]
    ranked = sorted(every, key=lambda each: -sum(each.values or (-1.0,)))
    return [
        {
            "trial": "centre" if trial is study.centre else str(trial.number),
            **dict(zip(study.objectives, trial.values or (), strict=False)),
            "test mean": found.test.get(trial.number),
            "on the front": trial.number in front,
            **trial.point,
            "problem": trial.problem or "",
        }
        for trial in ranked[:MOST_SHOWN]
    ]
