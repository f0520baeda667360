"""The course of a training run: the scores of its steps, and of windows over them, step by step.

Knows no Dagster. What a window was when earlier steps were the newest is in the history of its
name, so that one line of a picture is one window as it moved along the run.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from blake3 import blake3

from assets.work import names
from assets.work.merging.virtual_checkpoints import CHECKPOINT
from assets.work.scoring.scoring import SCORES, open_scores
from assets.work.upstream.entries import run_and_step
from eval_ops.errors import EvalError
from eval_ops.scores import scores_digest
from resources.errors import ResourceError

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import Mean
    from eval_ops.suites import Suite
    from resources.store import Artifact, ArtifactStore

    Points = list[tuple[int, Mean]]

FILE, PICTURE = "course.json", "course.png"
RAW = "the step itself"
"""What rows call the raw steps, beside the coefficients of windows."""
VERSION = 1
"""Raised where the same scores would give another course."""


@dataclass(frozen=True)
class Course:
    """A course has the means on test items of raw steps, and of each window by newest step.

    `merged` goes by coefficient. `sources` are the digests of all scores that are in it.
    """

    run: str
    raw: "Points"
    merged: "Mapping[str, Points]"
    sources: tuple[str, ...]

    @property
    def digest(self) -> str:
        """What changes with what the course shows."""
        return blake3(json.dumps([VERSION, self.run, *self.sources]).encode()).hexdigest()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row for each step and window, rising by step, in percent with 95 % intervals."""
        named = [(RAW, self.raw), *self.merged.items()]
        rows = [
            {
                "newest step": step,
                "window": name,
                "mean": round(100 * mean.value, 2),
                "95 % from": round(100 * mean.low, 2),
                "95 % to": round(100 * mean.high, 2),
            }
            for name, points in named
            for step, mean in points
        ]
        return sorted(rows, key=lambda row: (row["newest step"], row["window"]))


def course_of(
    store: "ArtifactStore", recipe: str, run: str, points: Mapping[str, str], suite: "Suite"
) -> Course:
    """Collect the course of a recipe's windows over one run.

    `points` has the coefficient of each partition. What is not scored on the suite, or cannot be
    read any more, is left out.
    """
    sources: list[str] = []
    raw: Points = []
    steps: dict[str, int] = {}
    for partition, ref in names.refs_of(store, names.RUN_STEP).items():
        of_run, step = run_and_step(str(partition))
        if of_run != run:
            continue
        steps |= {entry.digest: step for entry in ref.history}
        mean = _mean(store, ref.digest, suite, sources)
        if mean is not None:
            raw.append((step, mean))
    merged: dict[str, Points] = {}
    for partition, coefficient in points.items():
        ref = names.history_of(store, names.merged_checkpoint(recipe), partition)
        for digest in dict.fromkeys(e.digest for e in ref.history) if ref is not None else ():
            newest = _newest(store, digest, steps)
            mean = None if newest is None else _mean(store, digest, suite, sources)
            if newest is not None and mean is not None:
                merged.setdefault(coefficient, []).append((newest, mean))
    return Course(run, sorted(raw, key=lambda each: each[0]), merged, tuple(sorted(set(sources))))


def publish_course(store: "ArtifactStore", recipe: str, course: Course, run: str) -> "Artifact":
    """Publish a course with its picture, unless it is there, and point `<recipe>/course` to it."""
    from eval_ops.plots import course_plot

    digest = course.digest
    artifact = store.find(names.COURSE, digest)
    if artifact is None:
        with store.attempt(names.COURSE) as attempt:
            attempt.write_json(FILE, course.rows())
            title = f"{recipe}: windows over {course.run}"
            attempt.write_bytes(PICTURE, course_plot(title, course.raw, course.merged))
            artifact = attempt.publish(digest)
    store.point(names.course(recipe), None, names.COURSE, digest, run=run)
    return artifact


def _newest(store: "ArtifactStore", digest: str, steps: Mapping[str, int]) -> int | None:
    """The newest step that a window's checkpoint was made of; None where none can be told."""
    try:
        artifact = store.find(CHECKPOINT, digest)
    except ResourceError:
        return None
    inputs: Iterable[str] = artifact.manifest.get("inputs", ()) if artifact is not None else ()
    return max((steps[each] for each in inputs if each in steps), default=None)


def _mean(
    store: "ArtifactStore", checkpoint: str, suite: "Suite", sources: list[str]
) -> "Mean | None":
    """The mean on test items, whose scores are then among the sources."""
    digest = scores_digest(checkpoint, suite.digest)
    try:
        artifact = store.find(SCORES, digest)
        if artifact is None:
            return None
        mean = open_scores(artifact, checked=False).mean()
    except (EvalError, ResourceError):
        return None
    sources.append(digest)
    return mean
