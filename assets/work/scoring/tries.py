"""Candidates that a study tries, one after the other: scored in memory, and kept as trials.

Knows no Dagster.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.trial_answers import TrialAnswers
from eval_ops.errors import EvalError, PairingError
from eval_ops.search import Point, Study, Trial
from merge_ops.errors import RongheError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from assets.work.merging.merging import MergeJob
    from eval_ops.search.winners import Measure
    from merge_ops.recipes import Recipe
    from resources.store import Artifact, ArtifactStore

STUDY = "study"
STUDY_FILE = "study.json"
Tell = Callable[[int, int], None]
"""Called with the trials that are through and their number."""


@dataclass(frozen=True)
class SearchedSet:
    """The study of one expert set in the store; `found` counts candidates whose scores were there.

    `test` are means on test items, by the numbers of trials and of the centre.
    """

    artifact: "Artifact"
    study: Study
    found: int
    seconds: float
    test: "Mapping[int, float]" = field(default_factory=dict[int, float])


class Tries:
    """The candidates that were tried so far. `recipe_at` makes the recipe of a point.

    `trials` are in order, `found` counts those whose scores were in the store, `test` are their
    means on test items, by number.
    """

    def __init__(
        self,
        scorer: CandidateScorer,
        recipe_at: "Callable[[Point], Recipe]",
        objectives: tuple[str, ...],
        measure: "Measure" = "score",
    ) -> None:
        self._scorer, self._recipe_at = scorer, recipe_at
        self.answers = TrialAnswers(objectives, measure)
        self.trials: list[Trial] = []
        self.found = 0
        self.test: dict[int, float] = {}

    @property
    def asked(self) -> int:
        """How many questions were put to all of them."""
        return sum(trial.items for trial in self.trials)

    def add(self, point: Point) -> Trial:
        """Try a point as the next trial."""
        self.trials.append(self.tried(point))
        return self.trials[-1]

    def tried(self, point: Point) -> Trial:
        """Try a point beside the trials; it has the number of the next one.

        A candidate that cannot be merged or scored is a trial with a problem. Raises what is wrong
        with the store or the suite, and so with every candidate.
        """
        from resources.errors import ResourceError

        number = len(self.trials)
        try:
            scored = self._scorer.score(self._recipe_at(point))
            values = self.answers.add(number, scored.scores)
        except (ResourceError, PairingError):  # of the store or the suite, so of every candidate
            raise
        except (RongheError, EvalError) as error:
            return Trial(number, point, problem=f"{type(error).__name__}: {error}")
        self.found += scored.memoized
        self.test[number] = scored.scores.mean().value
        items = sum(score.n for score in scored.scores.scores)
        return Trial(number, point, values, scored.digest, None, items)


def publish_study(
    store: "ArtifactStore", job: "MergeJob", study: Study, run: str | None
) -> "Artifact":
    """Publish the study of a job's expert set, and point to it.

    Raises EvalError where not one of its candidates could be scored.
    """
    recipe = job.steps.result
    if study.best is None:
        problem = study.trials[-1].problem if study.trials else "no trial was made"
        raise EvalError(
            f"search of {recipe.name} [{job.expert_set}]: no candidate has scores; the"
            f" last one: {problem}"
        )
    with store.attempt(STUDY) as attempt:
        attempt.write_bytes(STUDY_FILE, study.to_json().encode())
        artifact = attempt.publish()
    store.point(names.search(recipe.name), job.expert_set, STUDY, artifact.digest, run=run)
    return artifact
