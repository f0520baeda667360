"""Candidates are scored without being written: merged straight into memory that a model is loaded
from. Knows no Dagster.

The parent reads the store and merges; the child that runs models has the memory as a folder of
weights (merge_ops.children.memory_folder) and exchanges the live model's for them. So there is one
live model for all candidates of a process, and of a candidate nothing is kept but its scores.
"""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.merging.memory_merging import MergingMemory, look, room_for
from assets.work.merging.merging import MergeJob, OpenedSet, open_set
from assets.work.merging.virtual_checkpoints import CHECKPOINT, plan_of
from assets.work.scoring.scoring import (
    SCORES,
    ScoredCheckpoint,
    Scoring,
    publish_scores,
    read_scores,
    score_checkpoint,
    score_in_child,
)
from eval_ops.scores import SuiteScores, scores_digest
from merge_ops.children import ClosedAtEnd
from merge_ops.errors import RongheError

if TYPE_CHECKING:
    from merge_ops.plans import Plan
    from merge_ops.progress import Progress
    from merge_ops.recipes import Recipe
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore


@dataclass(frozen=True)
class ScoredCandidate:
    """What a candidate scored. `digest` is its plan's, which a written one would have.

    `artifact` are the scores in the store: None where only some items were asked. `memoized` says
    that the store had them.
    """

    digest: str
    scores: SuiteScores
    artifact: "Artifact | None"
    memoized: bool


@dataclass(frozen=True)
class MadePoint:
    """What a recipe made for one partition: `called` in messages, `models` are names by digest."""

    checkpoint: "Artifact"
    called: str
    models: Mapping[str, str]


class CandidateScorer(ClosedAtEnd):
    """Scores candidates of one expert set on a suite, and writes no weights.

    `job` says what they are merged from: base, expert set, and the steps before the result, which
    are written where they lack. Use it as a context manager: at its end the memory is let go. With
    small models as many coefficients as `settings.memory` holds are merged from one read.
    """

    def __init__(
        self, store: "ArtifactStore", job: MergeJob, scoring: Scoring, settings: "StreamSettings"
    ) -> None:
        self._store = store
        self._job = job
        self._scoring = scoring
        self._settings = settings
        self._memory = MergingMemory(store, settings)

    @cached_property
    def _opened(self) -> OpenedSet:
        return open_set(self._store, self._job, self._settings)

    @cached_property
    def _plan(self) -> "Plan":
        """The plan of the job's own recipe, for all of its coefficients."""
        return self._planned(self._opened.recipe)

    def _planned(self, recipe: "Recipe") -> "Plan":
        from merge_ops.plans import plan_merge
        from merge_ops.stream import arithmetic_kind, check_settings

        arithmetic = arithmetic_kind(self._settings.device)
        plan = plan_merge(recipe, self._opened.models, arithmetic=arithmetic)
        check_settings(plan, self._settings)
        return plan

    def score(
        self,
        recipe: "Recipe",
        items: Mapping[str, Sequence[int]] | None = None,
        progress: "Progress | None" = None,
    ) -> ScoredCandidate:
        """Score one candidate: a recipe of the job's models, with the values it is to have.

        `recipe` is concrete, or takes the job's expert set; a sweep in it has one point. `items`
        asks some items alone, as `Evaluator.score` takes them; such scores are not kept in the
        store. Raises RecipeError and CompatibilityError for what cannot be merged, NonFiniteError
        where a weight is not finite, EvalError where it cannot be scored.
        """
        if recipe.experts:
            experts = self._job.expert_set.split("+") if self._job.expert_set else []
            recipe = recipe.for_experts(experts, self._job.base)
        plan = self._planned(recipe)
        if len(plan.outputs) != 1:
            raise ValueError(f"{recipe.name}: {len(plan.outputs)} candidates at once; give one")
        return self._scored(plan, plan.outputs[0].coefficient, (), items, progress)

    def score_point(
        self, recipe: str, partition: str, progress: "Progress | None" = None
    ) -> ScoredCheckpoint:
        """Score what a recipe made for one partition, and point `<recipe>/scores` to that.

        What it made may be written or virtual. Raises MissingArtifactError when nothing was made,
        EvalError when it cannot be scored, and what merging raises.
        """
        started = time.perf_counter()
        made = self.made(recipe, partition)
        if made.checkpoint.virtual:
            found = self._virtual(made, progress)
            assert found.artifact is not None
            seconds = time.perf_counter() - started
            scored = ScoredCheckpoint(found.artifact, found.scores, found.memoized, seconds)
        else:
            called = made.called
            scored = score_checkpoint(self._store, made.checkpoint, self._scoring, progress, called)
        digest, run = scored.artifact.digest, self._scoring.run
        self._store.point(names.scores(recipe), partition, SCORES, digest, run=run)
        return scored

    def made(self, recipe: str, partition: str) -> MadePoint:
        """Find what a recipe made for one partition. Raises MissingArtifactError."""
        from resources.errors import MissingArtifactError

        merged = names.merged_checkpoint(recipe)
        ref = names.ref_of(self._store, merged, partition)
        if ref is None:
            raise MissingArtifactError(
                f"{merged} [{partition}] is not in artifact store {self._store.uri}; materialize it"
                " first"
            )
        models = ref.fields.get("models")
        said = models if isinstance(models, dict) else {}
        by_digest = {str(digest): str(name) for name, digest in said.items()}
        checkpoint = self._store.get(ref.kind, ref.digest)
        return MadePoint(checkpoint, f"{merged} [{partition}]", by_digest)

    def ask(
        self,
        made: MadePoint,
        items: Mapping[str, Sequence[int]],
        progress: "Progress | None" = None,
    ) -> SuiteScores:
        """Ask some items alone, as `Evaluator.score` takes them; nothing is kept in the store.

        A candidate in memory stays there until the next one needs the room. Raises what
        `score_point` raises.
        """
        if made.checkpoint.virtual:
            plan, coefficient, ahead = self._plan_of(made)
            return _ask_merged(
                self._memory, plan, coefficient, ahead, self._scoring, items, progress, made.called
            )
        return score_in_child(
            made.checkpoint.folder(), made.called, self._scoring, progress, items,
            digest=made.checkpoint.digest,
        )  # fmt: skip

    def all_fit(self, count: int) -> bool:
        """Return whether so many coefficients of the job's plan are held in memory at once."""
        if not self._points():
            return False
        size = sum(shard.size for shard in self._plan.shards)
        return count <= room_for(self._settings, size)

    def _virtual(self, made: MadePoint, progress: "Progress | None") -> ScoredCandidate:
        known = self._known(made.checkpoint.digest)
        if known is not None:
            return known
        plan, coefficient, ahead = self._plan_of(made)
        return self._scored(plan, coefficient, ahead, None, progress, made.called)

    def _plan_of(self, made: MadePoint) -> "tuple[Plan, str, list[str]]":
        """The job's plan where that has the point, with what may be merged in the same read.

        Else the plan that the checkpoint's manifest describes.
        """
        points, digest = self._points(), made.checkpoint.digest
        if digest in points:
            ahead = list[str]()
            if not self._memory.holds(digest):
                ahead = [each for other, each in points.items() if self._is_next(other, each)]
            return self._plan, points[digest], ahead
        plan = plan_of(self._store, made.checkpoint, self._settings, made.models)
        return plan, plan.outputs[0].coefficient, []

    def _points(self) -> dict[str, str]:
        """Coefficients of the job's own plan by digest; none where it cannot be planned any more.

        A model may have changed since, or gone: what the store holds can be scored all the same.
        """
        from resources.errors import ResourceError

        try:
            return {str(output.digest): output.coefficient for output in self._plan.outputs}
        except (RongheError, ResourceError):
            return {}

    def _is_next(self, digest: str, coefficient: str) -> bool:
        """Whether a coefficient will be asked for too, and has no scores yet."""
        own = scores_digest(digest, self._scoring.suite.digest)
        return coefficient in self._job.points and self._store.find(SCORES, own) is None

    def _known(self, digest: str) -> ScoredCandidate | None:
        known = self._store.find(SCORES, scores_digest(digest, self._scoring.suite.digest))
        return None if known is None else ScoredCandidate(digest, read_scores(known), known, True)

    def _scored(
        self,
        plan: "Plan",
        coefficient: str,
        ahead: Iterable[str],
        items: Mapping[str, Sequence[int]] | None,
        progress: "Progress | None",
        called: str = "",
    ) -> ScoredCandidate:
        digest = next(str(o.digest) for o in plan.outputs if o.coefficient == coefficient)
        if items is None and (known := self._known(digest)) is not None:
            return known
        called = called or f"candidate {digest[:12]}"
        scores = _ask_merged(
            self._memory, plan, coefficient, ahead, self._scoring, items, progress, called
        )
        if items is not None:
            return ScoredCandidate(digest, scores, None, False)
        artifact = publish_scores(self._store, CHECKPOINT, digest, self._scoring.suite, scores)
        return ScoredCandidate(digest, scores, artifact, False)

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


def score_virtual(
    store: "ArtifactStore",
    checkpoint: "Artifact",
    scoring: Scoring,
    settings: "StreamSettings",
    called: str = "",
) -> ScoredCheckpoint:
    """Score a checkpoint that may be written or virtual, as it stands in the store.

    Raises what `score_checkpoint` raises, and what merging raises.
    """
    known = store.find(SCORES, scores_digest(checkpoint.digest, scoring.suite.digest))
    if known is None and checkpoint.virtual:  # unless somebody has written it since
        checkpoint = store.get(checkpoint.kind, checkpoint.digest)
    if known is not None or not checkpoint.virtual:
        return score_checkpoint(store, checkpoint, scoring, None, called)
    plan = plan_of(store, checkpoint, settings)
    called = called or f"checkpoint {checkpoint.digest[:12]}"
    coefficient, memory = plan.outputs[0].coefficient, MergingMemory(store, settings)
    try:
        scores = _ask_merged(memory, plan, coefficient, (), scoring, None, None, called)
    finally:
        memory.close()
    artifact = publish_scores(store, CHECKPOINT, checkpoint.digest, scoring.suite, scores)
    return ScoredCheckpoint(artifact, scores, False, 0.0)


def _ask_merged(
    memory: MergingMemory,
    plan: "Plan",
    coefficient: str,
    ahead: Iterable[str],
    scoring: Scoring,
    items: Mapping[str, Sequence[int]] | None,
    progress: "Progress | None",
    called: str,
) -> SuiteScores:
    """Merge one coefficient of a plan into memory, look at it, and ask it."""
    digest = next(str(o.digest) for o in plan.outputs if o.coefficient == coefficient)
    folder = memory.folder_of(plan, coefficient, ahead)
    look(plan, folder, called)
    return score_in_child(folder.path, called, scoring, progress, items, called, digest)
