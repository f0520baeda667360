"""benchmark_scores/<recipe> and model_scores: what checkpoints and models can do."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from blake3 import blake3

from assets.display import of_artifact, table
from assets.failures import RETRY_CRASHES, clear_failures
from assets.merged_checkpoints import MergeRecipe
from assets.progress_log import log_progress
from assets.run_settings import RunSettings
from assets.work.pulling import MODEL
from assets.work.scoring import SCORES, ScoredCheckpoint, score_checkpoint, score_named
from assets.work.whole_models import whole_model

if TYPE_CHECKING:
    from eval_ops.scores.scores import SuiteScores


def build_benchmark_scores(
    merge: MergeRecipe,
    suite: Path,
    code_version: str | None,
    same_point: dg.PartitionMapping,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
) -> dg.AssetsDefinition:
    """The scores of one recipe's checkpoints, point by point."""

    @dg.asset(
        key=["benchmark_scores", merge.name],
        deps=[dg.AssetDep(merge.key, partition_mapping=same_point)],
        partitions_def=merge.grid,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name=merge.name,
        automation_condition=condition,
        code_version=code_version,
        retry_policy=RETRY_CRASHES,
        pool="gpu",
        op_tags=dict(op_tags),
        kinds={"huggingface"},
        description=f"Benchmark scores: accuracies of every checkpoint of recipe {merge.name} on"
        f" suite {suite.stem}, by lm-eval, with every single answer. Kept under the digests of"
        " checkpoint and suite: what is in the store is not evaluated again.",
    )
    @clear_failures()
    def benchmark_scores(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from assets.work.suite_files import load_suite

        store, asked, scored = settings.store(), load_suite(suite), {}
        for key in context.partition_keys:
            source = ("/".join(merge.key.path), str(key))
            progress = log_progress(context.log, str(key))
            each = score_named(store, source, asked, settings.device, settings.threads, progress)
            target = (f"benchmark_scores/{merge.name}", str(key))
            store.point(*target, SCORES, each.artifact.digest, run=context.run.run_id)
            context.add_asset_metadata(_of_scores(each), partition_key=key)
            scored[str(key)] = each
        return dg.MaterializeResult(
            data_version=_version(scored), metadata={"of this run": table(_rows(scored))}
        )

    return benchmark_scores


def build_model_scores(
    suites: Mapping[str, Path],
    bases: Mapping[str, str],
    partitions: dg.PartitionsDefinition,
    from_model: dg.PartitionMapping | None,
    code_version: str | None,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
) -> dg.AssetsDefinition:
    """The scores of the models themselves, on every suite that a recipe uses.

    `bases` maps each expert to its base model. An adapter is scored as what it makes of its base.
    """

    @dg.asset(
        name="model_scores",
        deps=[dg.AssetDep(MODEL, partition_mapping=from_model)],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        group_name="models",
        automation_condition=condition,
        code_version=code_version,
        retry_policy=RETRY_CRASHES,
        pool="gpu",
        op_tags=dict(op_tags),
        kinds={"huggingface"},
        description="Accuracies of base models and experts, which every merge has to beat.",
    )
    @clear_failures()
    def model_scores(
        context: dg.AssetExecutionContext, settings: RunSettings
    ) -> dg.MaterializeResult:
        from assets.work.suite_files import load_suite

        store, scored = settings.store(), {}
        for asked in map(load_suite, suites.values()):
            for name in context.partition_keys:
                run, progress = context.run.run_id, log_progress(context.log, name)
                whole = whole_model(store, name, bases.get(name), settings.stream(), run)
                each = score_checkpoint(
                    store, whole, asked, settings.device, settings.threads, progress
                )
                target = (f"model_scores/{asked.name}", name)
                store.point(*target, SCORES, each.artifact.digest, run=run)
                context.add_asset_metadata(_of_scores(each, f"{asked.name}: "), partition_key=name)
                scored[f"{name} on {asked.name}"] = each
        return dg.MaterializeResult(
            data_version=_version(scored), metadata={"of this run": table(_rows(scored))}
        )

    return model_scores


def _version(scored: Mapping[str, ScoredCheckpoint]) -> dg.DataVersion:
    digests = sorted(each.artifact.digest for each in scored.values())
    if len(digests) == 1:
        return dg.DataVersion(digests[0])
    return dg.DataVersion(blake3("\n".join(digests).encode()).hexdigest())


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
