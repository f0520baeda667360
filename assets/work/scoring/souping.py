"""Soups: which experts of a set are averaged, chosen from their scores. Knows no Dagster.

Greedy (Wortsman et al. 2022): experts in the order of their validation means; each stays if the
average with it is at least as good as without it. SoCE (Maiti et al. 2025): one expert for each
weakly correlated benchmark, and of a grid of weights the one that is best on validation items.

A soup's study is that of a search: its trials are the averages that were tried, and what scores it
finds in the store it does not ask for. So a soup that was killed goes on where it was.
"""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from assets.work.merging.merging import MergeJob
from assets.work.merging.whole_models import whole_model
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.scoring import read_scores, score_checkpoint
from assets.work.scoring.searching import search_set, soup_at
from assets.work.scoring.tries import SearchedSet, Tell, Tries, publish_study
from eval_ops.scores.answers import ScoreMatrix, category_soup, greedy_soup, score_matrix
from eval_ops.search import MEAN, Point, Study

if TYPE_CHECKING:
    from assets.work.scoring.scoring import Scoring
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore


def study_set(
    store: "ArtifactStore",
    job: MergeJob,
    scoring: "Scoring",
    stream: "StreamSettings",
    tell: Tell | None = None,
) -> SearchedSet:
    """Search what a job's recipe searches for: parameters, or the members of a soup.

    Raises as `search_set` and `soup_set` do.
    """
    study = soup_set if job.steps.result.soup else search_set
    return study(store, job, scoring, stream, tell)


def soup_set(
    store: "ArtifactStore",
    job: MergeJob,
    scoring: "Scoring",
    stream: "StreamSettings",
    tell: Tell | None = None,
) -> SearchedSet:
    """Choose the members of a job's soup, publish the study, and point to it.

    The experts are scored where they were not. Raises PairingError where the suite has no
    validation items, or has not the benchmarks, or the set the experts, that SoCE needs; EvalError
    where not one average could be scored.
    """
    started = time.perf_counter()
    recipe, experts = job.steps.result, job.expert_set.split("+")
    matrix = expert_matrix(store, job, scoring, stream)
    with CandidateScorer(store, job, scoring, stream) as scorer:
        tries = Tries(scorer, lambda point: soup_at(recipe, point), (MEAN,))
        if recipe.soup == "greedy":
            chosen = _greedy(matrix, tries, experts, tell)
        else:
            chosen = _categories(matrix, tries, experts, tell)
    study = Study(
        str(recipe.soup), recipe.seed, (MEAN,), tuple(tries.trials), "trials", chosen=chosen
    )
    artifact = publish_study(store, job, study, scoring.run)
    return SearchedSet(artifact, study, tries.found, time.perf_counter() - started, tries.test)


def expert_matrix(
    store: "ArtifactStore", job: MergeJob, scoring: "Scoring", stream: "StreamSettings"
) -> ScoreMatrix:
    """Return what the experts of a job's set answered, and have those asked that were not."""
    scores = {}
    for name in job.expert_set.split("+"):
        model = whole_model(store, name, job.base, stream, scoring.run)
        scored = score_checkpoint(store, model, scoring, None, f"model {name}")
        scores[name] = read_scores(scored.artifact)
    return score_matrix(scores)


def _greedy(
    matrix: ScoreMatrix, tries: Tries, experts: Sequence[str], tell: Tell | None
) -> int | None:
    """Try averages; return the trial that is the soup. The first trial is the best expert alone."""

    def value_of(members: tuple[str, ...]) -> float:
        trial = tries.add(_point(experts, dict.fromkeys(members, 1 / len(members))))
        if tell is not None:
            tell(len(tries.trials), len(experts))
        return trial.values[0] if trial.values is not None else float("-inf")

    alone = greedy_soup(matrix, value_of, most=1)
    value_of(alone.members)
    found = greedy_soup(matrix, value_of)
    kept = [number for number, tried in enumerate(found.tried) if tried.kept]
    return kept[-1] if tries.trials[kept[-1]].values is not None else None


def _categories(
    matrix: ScoreMatrix, tries: Tries, experts: Sequence[str], tell: Tell | None
) -> int | None:
    """Try the grid of weights of the category experts; the best trial is the soup."""
    soup = category_soup(matrix)
    grid = list(soup.weights())
    for weights in grid:
        tries.add(_point(experts, dict(zip(soup.members, weights, strict=True))))
        if tell is not None:
            tell(len(tries.trials), len(grid))
    return None


def _point(experts: Sequence[str], weights: dict[str, float]) -> Point:
    return {f"weight[{name}]": float(f"{weights.get(name, 0.0):.6g}") for name in experts}
