"""Early stopping: the candidates of one expert set are asked until it is clear which is best.

A recipe asks for it by `gate: {early_stopping: true}`. Knows no Dagster.

- With `reduced_set` all are first asked a part of the validation items that is chosen from what
  is known (`screening`), and those that are far behind by an estimate are left.
- On validation items the coefficients of a set race (eval_ops.scores.rounds): one that is behind
  for sure is left. Of those that were asked everything only the best is asked test items too, as
  only it can be the set's row on the leaderboard, and be promoted.
- On test items that one runs against the recipe's champion and is left as soon as it is worse for
  sure. Where it is not, it is asked everything, and the gate decides as ever, on whole scores: so
  a promotion is as safe as without early stopping.

What was left has partial scores, which say against whom (`partial_scores`). Chance of leaving the
set's best: at most 1 − the gate's confidence; of leaving a candidate that is as good as the
champion: half of that.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.scoring.candidates import MadePoint
from assets.work.scoring.known_answers import VALIDATION, KnownAnswers
from assets.work.scoring.partial_scores import (
    PARTIAL,
    AskedCandidate,
    AskPlaces,
    ItemPlaces,
    PartialScores,
    Role,
    publish_partial,
)
from assets.work.scoring.racing import PILOT, course_from, values_of
from assets.work.scoring.scoring import (
    SCORES,
    ScoredCheckpoint,
    Scoring,
    publish_scores,
    read_scores,
)
from assets.work.scoring.screening import screen_from_store
from assets.work.scoring.set_scores import Asker, LeftEarly, SetPoints, SetScores
from eval_ops.errors import PairingError
from eval_ops.scores import SuiteScores
from eval_ops.scores.rounds import Ask, Course, Item, Saved, challenge, select

if TYPE_CHECKING:
    from eval_ops.scores.gates import Gate
    from merge_ops.progress import Progress
    from resources.store import ArtifactStore

TEST = "test"
ROUNDING = 1e-12
"""Means that differ by less are the same."""
ProgressOf = Callable[[str], "Progress"]
SEED = 0
"""Of the order in which items are asked: one for all, so that comparisons are paired."""


def score_set(
    store: "ArtifactStore",
    asker: Asker,
    scoring: Scoring,
    points: SetPoints,
    gate: "Gate",
    progress_of: ProgressOf | None = None,
) -> SetScores:
    """Score the candidates of one set, and leave early those that are worse for sure.

    Without early stopping in the gate all are asked everything; what was asked of one that had been
    left is not asked again. One that cannot be scored is a fault of its own, in `failed`.
    `progress_of` gives what counts the answers of a partition.
    """
    race = _Race(store, asker, scoring, points, gate, progress_of)
    race.run()
    return race.found


class _CannotBeAskedError(Exception):
    """A candidate that cannot be asked has to leave the race."""

    def __init__(self, partition: str, why: Exception) -> None:
        super().__init__(partition)
        self.partition, self.why = partition, why


class _Race:
    """The candidates of one set under way."""

    def __init__(
        self,
        store: "ArtifactStore",
        asker: Asker,
        scoring: Scoring,
        points: SetPoints,
        gate: "Gate",
        progress_of: ProgressOf | None,
    ) -> None:
        self._store, self._asker, self._scoring = store, asker, scoring
        self._points, self._gate, self._progress_of = points, gate, progress_of
        self._suite, self._asset = scoring.suite, names.scores(points.recipe)
        self._known = KnownAnswers(store, points, scoring.suite)
        self._started = time.perf_counter()
        self.found = SetScores()
        self._made: dict[str, MadePoint] = {}
        self._racing: dict[str, AskedCandidate] = {}
        # Of others of the set that answered all validation items: checkpoint and answers.
        self._rivals: dict[str, tuple[str, Mapping[Item, float]]] = {}

    def run(self) -> None:
        """Score all that are wanted, or leave them."""
        begun, early = self._begun(), self._gate.early_stopping
        places = self._places(begun) if early or any(begun.values()) else None
        done = self.found.scored.keys() | self.found.failed.keys()
        for partition in [each for each in begun if each not in done]:
            before = begun[partition]
            if places is None or not (early or before):
                self._score_whole(partition)
                continue
            ask, answers = self._ask_of(partition), before.scores if before else None
            called = self._made[partition].called
            self._racing[partition] = AskedCandidate(called, places, ask, answers)
        if places is None or not self._racing:
            return
        all_of_them = [*self._racing.values()]
        asked = sum(each.asked for each in all_of_them)
        total = len(places) * len(all_of_them) - asked
        for partition in self._leaders(places) if early else [*self._racing]:
            self._finish(partition)
        now = sum(each.asked for each in all_of_them) - asked
        self.found.saved = Saved(now, total)

    def _places(self, begun: Mapping[str, object]) -> ItemPlaces | None:
        """Where the items stand; None, and a note, where candidates cannot race on them."""
        if self._suite.valued_later:
            self.found.note = "all items are asked: a judge or a program values them later"
            return None
        try:
            whole = self._whole_scores(begun)
            return ItemPlaces(whole) if whole is not None else None
        except PairingError as error:
            self.found.note = f"all items are asked: {error}"
            return None

    def _begun(self) -> dict[str, PartialScores | None]:
        """What each wanted candidate was asked; those with whole scores are done."""
        begun: dict[str, PartialScores | None] = {}
        for partition in self._points.wanted:
            with self._own_fault(partition):
                made = self._made[partition] = self._asker.made(self._points.recipe, partition)
                if self._known.has_whole(made.checkpoint.digest):
                    self._score_whole(partition)
                else:
                    begun[partition] = self._known.partial(partition, made.checkpoint.digest)
        return begun

    def _whole_scores(self, begun: Mapping[str, object]) -> SuiteScores | None:
        """Whole scores; where there are none the first that can be scored is asked everything."""
        whole = self._known.any_whole()
        for partition in begun if whole is None else ():
            self._score_whole(partition)
            if partition in self.found.scored:
                return read_scores(self.found.scored[partition].artifact)
        return whole

    def _leaders(self, places: ItemPlaces) -> list[str]:
        """Race on validation items; return the best that are new, and leave the others.

        There are several where they are equal there, and none where one before them is better.
        """
        course = course_from(places.whole, VALIDATION, whole=True, seed=SEED)
        self._rivals = self._known.rivals(places, self._racing.keys() | self.found.failed.keys())
        if self._gate.reduced_set is not None and len(self._rivals) + len(self._racing) > 1:
            self._screen(course, self._gate.reduced_set)
        pilot = PILOT if self._asker.all_fit(len(self._racing)) else 0
        while self._racing:
            asks = {name: self._validation_of(name) for name in self._racing}
            known = {name: answers for name, (_, answers) in self._rivals.items()}
            try:
                selection = select(
                    course, asks, self._gate.confidence, known=known, pilot_units=pilot
                )
                break
            except _CannotBeAskedError as error:
                self.found.failed[error.partition] = error.why
                del self._racing[error.partition]
        else:
            return []
        best = selection.values[selection.best]
        leaders: list[str] = []
        for name in self._racing:
            answers = selection.values.get(name)
            if answers is not None and course.difference(answers, best) >= -ROUNDING:
                leaders.append(name)
                continue
            how = "is better on validation items"
            if answers is None:
                how += f" for sure, after {selection.asked[name]} of {len(course.items)}"
            called = self._points.live.get(selection.best, selection.best)
            self._leave(name, f"{called} {how}", self._digest_of(selection.best), "coefficient")
        return leaders

    def _screen(self, course: Course, share: float) -> None:
        """Ask all a reduced set, and leave those that are far behind by its estimate."""
        points = self._points
        try:
            screen = screen_from_store(
                self._store, self._suite, points.models, points.recipes, share
            )
        except PairingError as error:
            self.found.reduced = f"none: {error}"
            return
        self.found.reduced = screen.to_text()
        asked = [(key.benchmark, key.item) for key in screen.items]
        estimates = {name: course.mean(answers) for name, (_, answers) in self._rivals.items()}
        for name in [*self._racing]:
            with self._own_fault(name):
                answers = self._racing[name].answer(VALIDATION, asked)
                values = {key: answers[key.benchmark, key.item] for key in screen.items}
                estimates[name] = screen.estimate(values)
        for name in self.found.failed.keys() & self._racing.keys():
            del self._racing[name]
        best = max(estimates, key=lambda name: estimates[name], default="")
        for name, value in screen.behind(estimates, self._gate.confidence).items():
            if name in self._racing:
                called = points.live.get(best, best)
                why = f"{called} is ahead by estimates from {len(asked)} of {len(course.items)}"
                told = f"{100 * estimates[best]:.1f} and {100 * value:.1f}"
                why = (
                    f"{why} validation items, {told}, which err by {100 * screen.error:.1f} points"
                )
                self._leave(name, why, self._digest_of(best), "coefficient")
                del self._racing[name]

    def _finish(self, partition: str) -> None:
        """Ask a candidate everything, but for one that is worse than the champion for sure."""
        with self._own_fault(partition):
            candidate, checkpoint = self._racing[partition], self._made[partition].checkpoint
            champion = self._known.champion() if self._gate.early_stopping else None
            if champion is not None and champion[0] != checkpoint.digest:
                digest, scores = champion
                course = course_from(scores, TEST, whole=False, seed=SEED)
                ended = challenge(
                    course,
                    lambda items: candidate.answer(TEST, items),
                    values_of(scores, TEST),
                    confidence=self._gate.confidence,
                    only_worse=True,
                )
                if ended.verdict == "worse":
                    after = f"after {ended.saved.asked} of {ended.saved.total}"
                    why = f"worse than the champion on test items for sure, {after}"
                    self._leave(partition, why, digest, "champion")
                    return
            candidate.ask_the_rest()
            self._publish_whole(partition)

    def _publish_whole(self, partition: str) -> None:
        checkpoint, scores = self._made[partition].checkpoint, self._racing[partition].scores()
        artifact = publish_scores(
            self._store, checkpoint.kind, checkpoint.digest, self._suite, scores
        )
        self._point(partition, SCORES, artifact.digest)
        took = time.perf_counter() - self._started
        self.found.scored[partition] = ScoredCheckpoint(artifact, scores, False, took)

    def _leave(self, partition: str, because: str, against: str, role: Role) -> None:
        with self._own_fault(partition):
            candidate = self._racing[partition]
            if candidate.is_whole:  # by what it was asked earlier
                self._publish_whole(partition)
                return
            scores, total = candidate.scores(), candidate.total
            mean = scores.mean(VALIDATION).value if candidate.has_all(VALIDATION) else None
            artifact = publish_partial(
                self._store, self._made[partition].checkpoint, self._suite, scores, total,
                because, against, role, mean,
            )  # fmt: skip
            self._point(partition, PARTIAL, artifact.digest)
            took = time.perf_counter() - self._started
            saved = Saved(candidate.asked, total)
            self.found.left[partition] = LeftEarly(artifact, scores, saved, because, took)

    def _score_whole(self, partition: str) -> None:
        with self._own_fault(partition):
            self.found.scored[partition] = self._asker.score_point(
                self._points.recipe, partition, self._progress(partition)
            )

    def _validation_of(self, partition: str) -> Ask:
        def ask(items: Sequence[Item]) -> Mapping[Item, float]:
            try:
                return self._racing[partition].answer(VALIDATION, items)
            except Exception as error:
                raise _CannotBeAskedError(partition, error) from error

        return ask

    def _ask_of(self, partition: str) -> AskPlaces:
        def ask(items: Mapping[str, Sequence[int]]) -> SuiteScores:
            return self._asker.ask(self._made[partition], items, self._progress(partition))

        return ask

    def _progress(self, partition: str) -> "Progress | None":
        return self._progress_of(partition) if self._progress_of is not None else None

    def _digest_of(self, partition: str) -> str:
        if partition in self._rivals:
            return self._rivals[partition][0]
        return self._made[partition].checkpoint.digest

    def _point(self, partition: str, kind: str, digest: str) -> None:
        self._store.point(self._asset, partition, kind, digest, run=self._scoring.run)

    @contextmanager
    def _own_fault(self, partition: str) -> Iterator[None]:
        """Keep what goes wrong with one candidate: the others go on."""
        try:
            yield
        except Exception as error:
            self.found.failed[partition] = error
