"""<recipe>/scores and model_scores: what checkpoints and models can do."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import dagster as dg
from blake3 import blake3

from assets.frame.batches import Batch, Report
from assets.frame.display import number, of_artifact, table
from assets.frame.grid import group_by_set
from assets.frame.progress_log import log_progress
from assets.frame.run_settings import RunSettings
from assets.frame.team_asset import team_asset
from assets.merged_checkpoints import MergeRecipe
from assets.work import names
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.early_stopping import score_set
from assets.work.scoring.scoring import ScoredCheckpoint, Scoring, score_model
from assets.work.scoring.set_scores import SetPoints, SetScores
from assets.work.upstream.pulling import MODEL
from eval_ops.scores.gates import parse_gate

if TYPE_CHECKING:
    from eval_ops.scores import SuiteScores


def build_scores(
    merge: MergeRecipe,
    suite: Path,
    code_version: str | None,
    same_point: dg.PartitionMapping,
    condition: dg.AutomationCondition,
    op_tags: Mapping[str, Any],
    deps: Sequence[dg.AssetDep] = (),
    recipes: Sequence[str] = (),
) -> dg.AssetsDefinition:
    """Build the scores of one recipe's checkpoints, point by point. `deps` are further ones.

    With early stopping in the gate the points of a set are asked side by side, and those that are
    worse for sure are left. `recipes` have scores on the same suite.
    """
    gate = parse_gate(merge.recipe.gate)

    @team_asset(
        names.scores(merge.name),
        condition,
        deps=[dg.AssetDep(merge.key, partition_mapping=same_point), *deps],
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
        store, scoring, batch = settings.store(), _scoring(suite, settings, context), Batch(context)
        progress = partial(log_progress, context.log, unit="items")
        live = group_by_set(merge.grid.get_partition_keys()) if gate.early_stopping else {}
        for expert_set, keys in group_by_set(batch.keys).items():
            job, key_of = merge.job(expert_set, keys), {str(key): key for key in keys.values()}
            with CandidateScorer(store, job, scoring, settings.stream()) as scorer:
                for points in _together(merge, expert_set, keys, live, recipes):
                    found = score_set(store, scorer, scoring, points, gate, progress)
                    for name in points.wanted:
                        with batch.part(key_of[name]):
                            batch.report(key_of[name], *_of_point(found, name))
                    if gate.early_stopping:
                        context.log.info(f"{expert_set}: {found.note or found.saved.to_text()}")
        return batch.result()

    return scores


def _together(
    merge: MergeRecipe,
    expert_set: str,
    keys: Mapping[str, dg.MultiPartitionKey],
    live: Mapping[str, Mapping[str, dg.MultiPartitionKey]],
    recipes: Sequence[str],
) -> list[SetPoints]:
    """What is scored at once: with early stopping a set as a whole, else point by point."""
    wanted = {str(key): coefficient for coefficient, key in keys.items()}
    models = (merge.base, *expert_set.split("+"))
    if live:
        of_set = {str(key): coefficient for coefficient, key in live[expert_set].items()}
        return [SetPoints(merge.name, wanted, of_set, models, recipes)]
    return [SetPoints(merge.name, {key: c}, wanted, models) for key, c in wanted.items()]


def _of_point(found: SetScores, key: str) -> Report:
    """Report what became of one candidate; raises what was wrong with it."""
    if key in found.failed:
        raise found.failed[key]
    if key in found.scored:
        reduced = {"reduced set": found.reduced} if found.reduced else {}
        return found.scored[key].artifact.digest, {**_of_scores(found.scored[key]), **reduced}
    left = found.left[key]
    return left.artifact.digest, {
        **of_artifact(left.artifact, False),
        "left early": left.because,
        **({"reduced set": found.reduced} if found.reduced else {}),
        "asked": left.saved.asked,
        "items": left.saved.total,
        "saved": number(left.saved.share),
        "partial scores": table(_score_rows(left.scores)),
        "seconds": round(left.seconds, 3),
    }


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
        store, stream, batch = settings.store(), settings.stream(), Batch(context)
        scored: dict[str, dict[str, ScoredCheckpoint]] = {name: {} for name in batch.keys}
        scoring: Scoring | None
        for suite in suites.values():
            scoring = None
            with batch.part(*batch.keys):  # one that became broken since stops no other suite
                scoring = _scoring(suite, settings, context)
            for name in batch.keys if scoring is not None else ():
                progress = log_progress(context.log, name, unit="items")
                with batch.part(name):
                    of_model = score_model(store, name, bases.get(name), scoring, stream, progress)
                    scored[name][scoring.suite.name] = of_model
        for name, by_suite in scored.items():
            if len(by_suite) == len(suites):
                batch.report(name, *_of_suites(by_suite))
        return batch.result()

    return model_scores


def _scoring(suite: Path, settings: RunSettings, context: dg.AssetExecutionContext) -> Scoring:
    from assets.work.suite_files import load_suite

    return Scoring(
        load_suite(suite, fetch=True), settings.device, settings.threads, context.run.run_id
    )


def _of_suites(scored: Mapping[str, ScoredCheckpoint]) -> Report:
    """Report a model's scores on several suites, under their digest or that of their digests."""
    digests = sorted(each.artifact.digest for each in scored.values())
    version = digests[0] if len(digests) == 1 else blake3("\n".join(digests).encode()).hexdigest()
    shown: dict[str, Any] = {}
    for suite, of_model in scored.items():
        shown |= _of_scores(of_model, f"{suite}: ")
    return version, shown


def _of_scores(each: ScoredCheckpoint, prefix: str = "") -> dict[str, Any]:
    shown = {
        **of_artifact(each.artifact, each.memoized),
        "seconds": round(each.seconds, 3),
        "scores": table(_score_rows(each.scores)),
        "mean on validation items": _mean(each.scores, "validation"),
        "mean on test items": _mean(each.scores, "test"),
        "smallest difference": _smallest_difference(each.scores),
    }
    return {prefix + name: value for name, value in shown.items()}


def _mean(scores: "SuiteScores", split: Literal["validation", "test"]) -> float | str:
    """The mean over benchmarks, or a word where a suite has no such items: it is shown, no more."""
    from eval_ops.errors import PairingError

    try:
        return number(scores.mean(split).value)
    except PairingError:
        return "no such items"


def _smallest_difference(scores: "SuiteScores") -> str:
    """What the suite can show at the worst; a word where it has no test items or no answers."""
    from eval_ops.errors import PairingError
    from eval_ops.scores.power import expected_from, suite_power

    try:
        return suite_power(scores.suite, expected_from([scores])).to_text()
    except PairingError:
        return "no such items"


def _score_rows(scores: "SuiteScores") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for score in scores.scores:
        row: dict[str, Any] = {
            "benchmark": score.benchmark,
            "items": score.split,
            "n": score.n,
            score.metric: round(score.value, 4),
            "95 % from": round(score.low, 4),
            "95 % to": round(score.high, 4),
        }
        if score.mean_length is not None:
            row["tokens an answer"] = round(score.mean_length, 1)
        rows.append(row)
    return rows
