"""What the store knows of a set's candidates on a suite, before any is asked. Knows no Dagster."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.scoring.partial_scores import (
    AskedCandidate,
    ItemPlaces,
    PartialScores,
    read_partial,
    whole_scores,
)
from assets.work.scoring.racing import values_of
from assets.work.scoring.scoring import SCORES, read_scores
from eval_ops.scores import SuiteScores, scores_digest
from eval_ops.scores.rounds import Item

if TYPE_CHECKING:
    from assets.work.scoring.set_scores import SetPoints
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore

VALIDATION = "validation"


class KnownAnswers:
    """Reads scores, whole and partial, of one set's candidates on one suite."""

    def __init__(self, store: "ArtifactStore", points: "SetPoints", suite: "Suite") -> None:
        self._store, self._points, self._suite = store, points, suite
        self._asset = names.scores(points.recipe)

    def has_whole(self, checkpoint: str) -> bool:
        """Return whether a checkpoint has whole scores."""
        digest = scores_digest(checkpoint, self._suite.digest)
        return self._store.find(SCORES, digest) is not None

    def partial(self, partition: str, checkpoint: str) -> PartialScores | None:
        """Return what a candidate was asked before it was left; None where it never was."""
        ref = names.ref_of(self._store, self._asset, partition)
        partial = read_partial(self._store, ref, self._suite.digest)
        return partial if partial is not None and partial.checkpoint == checkpoint else None

    def any_whole(self) -> SuiteScores | None:
        """Return whole scores on the suite, whoever's they are: they say what there is to ask."""
        models = [(f"model_scores/{self._suite.name}", name) for name in self._points.models]
        for asset, key in [(self._asset, key) for key in self._points.live] + models:
            ref = names.ref_of(self._store, asset, key)
            whole = whole_scores(self._store, ref, self._suite.digest)
            if whole is not None:
                return whole
        return None

    def rivals(
        self, places: ItemPlaces, others: Collection[str]
    ) -> dict[str, tuple[str, Mapping[Item, float]]]:
        """Return candidates that answered all validation items, without the `others`.

        By partition: the checkpoint's digest, and its answers.
        """
        made, found = names.merged_checkpoint(self._points.recipe), {}
        for partition in self._points.live:
            checkpoint = names.ref_of(self._store, made, partition)
            if partition in others or checkpoint is None:
                continue
            partial = self.partial(partition, checkpoint.digest)
            ref = names.ref_of(self._store, self._asset, partition)
            if partial is not None:
                candidate = AskedCandidate(partition, places, _nobody, partial.scores)
                if candidate.has_all(VALIDATION):
                    found[partition] = checkpoint.digest, candidate.values(VALIDATION)
            elif ref is not None:
                whole = whole_scores(self._store, ref, self._suite.digest)
                own = scores_digest(checkpoint.digest, self._suite.digest)
                if whole is not None and ref.digest == own:
                    found[partition] = checkpoint.digest, values_of(whole, VALIDATION)
        return found

    def champion(self) -> tuple[str, SuiteScores] | None:
        """Return the recipe's champion, by digest, and its scores; None where there are none."""
        ref = names.ref_of(self._store, names.champion(self._points.recipe))
        if ref is None:
            return None
        scores = self._store.find(SCORES, scores_digest(ref.digest, self._suite.digest))
        return None if scores is None else (ref.digest, read_scores(scores))


def _nobody(items: object) -> SuiteScores:
    raise AssertionError("its answers are known, and it is not asked")
