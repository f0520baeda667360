"""<recipe>/scores and model_scores: what checkpoints and models can do."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from blake3 import blake3

from assets.display import of_artifact, table
from assets.merged_checkpoints import MergeRecipe
from assets.progress_log import log_progress
from assets.run_settings import RunSettings
from assets.team_asset import team_asset
from assets.work import names
from assets.work.pulling import MODEL
from assets.work.scoring import ScoredCheckpoint, Scoring, score_model, score_point

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores


def build_scores(
    merge: MergeRecipe,
    suite: Path,
    code_version: str | None,
    same_point: dg.PartitionMapping,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
) -> dg.AssetsDefinition:
    """Build the scores of one recipe's checkpoints, point by point."""

    @team_asset(
        names.scores(merge.name),
        condition,
        deps=[dg.AssetDep(merge.key, partition_mapping=same_point)],
        partitions=merge.grid,
        group=merge.name,
        code_version=code_version,
        gpu=op_tags,
        one_run=True,
        kind="huggingface",
        description=f"Benchmark scores: accuracies of every checkpoint of recipe {merge.name} on"
        f" suite {suite.stem}, by lm-eval, with every single answer. Kept under the digests of"
        " checkpoint and suite: what is in the store is not evaluated again.",
    )
    def scores(context: dg.AssetExecutionContext, settings: RunSettings) -> dg.MaterializeResult:
        store, scoring, scored = settings.store(), _scoring(suite, settings, context), {}
        for key in context.partition_keys:
            progress = log_progress(context.log, str(key))
            of_point = score_point(store, merge.name, str(key), scoring, progress)
            context.add_asset_metadata(_of_scores(of_point), partition_key=key)
            scored[str(key)] = of_point
        return _result(scored)

    return scores


def build_model_scores(
    suites: Mapping[str, Path],
    bases: Mapping[str, str],
    partitions: dg.PartitionsDefinition,
    from_model: dg.PartitionMapping | None,
    code_version: str | None,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
) -> dg.AssetsDefinition:
    """Build the scores of the models themselves, on every suite that a recipe uses.

    `bases` maps each expert to its base model. An adapter is scored as what it makes of its base.
    """

    @team_asset(
        "model_scores",
        condition,
        deps=[dg.AssetDep(MODEL, partition_mapping=from_model)],
        partitions=partitions,
        group="models",
        code_version=code_version,
        gpu=op_tags,
        one_run=True,
        kind="huggingface",
        description="Accuracies of base models and experts, which every merge has to beat.",
    )
    def model_scores(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        store, stream, scored = settings.store(), settings.stream(), {}
        for scoring in (_scoring(suite, settings, context) for suite in suites.values()):
            for name in context.partition_keys:
                progress = log_progress(context.log, name)
                of_model = score_model(store, name, bases.get(name), scoring, stream, progress)
                shown = _of_scores(of_model, f"{scoring.suite.name}: ")
                context.add_asset_metadata(shown, partition_key=name)
                scored[f"{name} on {scoring.suite.name}"] = of_model
        return _result(scored)

    return model_scores


def _scoring(suite: Path, settings: RunSettings, context: dg.AssetExecutionContext) -> Scoring:
    from eval_ops.suites import load_suite

    return Scoring(load_suite(suite), settings.device, settings.threads, context.run.run_id)


def _result(scored: Mapping[str, ScoredCheckpoint]) -> dg.MaterializeResult:
    """Report what a run scored, under the scores' digest or that of several digests."""
    digests = sorted(each.artifact.digest for each in scored.values())
    version = digests[0] if len(digests) == 1 else blake3("\n".join(digests).encode()).hexdigest()
    return dg.MaterializeResult(
        data_version=dg.DataVersion(version), metadata={"of this run": table(_rows(scored))}
    )


def _of_scores(each: ScoredCheckpoint, prefix: str = "") -> dict[str, Any]:
    shown = {
        **of_artifact(each.artifact, each.memoized),
        "seconds": round(each.seconds, 3),
        "scores": table(_score_rows(each.scores)),
        "mean on validation items": each.scores.mean("validation").value,
        "mean on test items": each.scores.mean().value,
    }
    return {prefix + name: value for name, value in shown.items()}


def _score_rows(scores: "SuiteScores") -> list[dict[str, Any]]:
    return [
        {
            "benchmark": score.benchmark,
            "items": score.split,
            "n": score.n,
            score.metric: round(score.value, 4),
            "standard error": round(score.stderr or 0.0, 4),
        }
        for score in scores.scores
    ]


def _rows(scored: Mapping[str, ScoredCheckpoint]) -> list[dict[str, Any]]:
    """One row for each checkpoint: the test value of every benchmark, and both means."""
    return [
        {
            "of": name,
            **{bench: round(each.scores.score(bench).value, 4) for bench in each.scores.benchmarks},
            "test mean": round(each.scores.mean().value, 4),
            "validation mean": round(each.scores.mean("validation").value, 4),
            "memoized": each.memoized,
            "seconds": round(each.seconds, 2),
        }
        for name, each in scored.items()
    ]
