"""Scores of some items of a suite: what a candidate was asked before it was left. Knows no Dagster.

They are artifacts of a kind of their own, so that nobody takes them for a candidate's scores. What
was asked is not asked again: `AskedCandidate` begins with it, and makes whole scores of it when the
rest is asked too.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from assets.work.scoring.scoring import SCORES, read_scores
from eval_ops.errors import PairingError
from eval_ops.scores import Sample, SuiteScores, summarize

if TYPE_CHECKING:
    from eval_ops.suites import Suite
    from resources.store import Artifact, ArtifactStore, Ref

PARTIAL = "partial_scores"
Role = Literal["coefficient", "champion"]
"""What a candidate was left against: another candidate of its recipe, or the recipe's champion."""
Place = tuple[str, str, str]
"""Benchmark, split and id of an item."""
AskPlaces = Callable[[Mapping[str, Sequence[int]]], SuiteScores]
"""Asks a candidate the items at some places of each benchmark."""


@dataclass(frozen=True)
class PartialScores:
    """What a candidate was asked, and why no more: `against` is the digest of what beat it."""

    artifact: "Artifact"
    scores: SuiteScores
    checkpoint: str
    asked: int
    total: int
    because: str
    against: str
    role: Role
    validation: float | None = None
    """Its mean on validation items, where it was asked all of them."""


class ItemPlaces:
    """Where each item of a suite stands in its benchmark, read from whole scores on the suite.

    Raises PairingError where its candidates cannot race: an item has several answers, a benchmark
    has no validation items, or a value is no share.
    """

    def __init__(self, whole: SuiteScores) -> None:
        self.whole = whole
        self._order: dict[Place, int] = {}
        self._places: dict[Place, int] = {}
        counts: dict[str, int] = {}
        for sample in whole.samples:
            place = (sample.benchmark, sample.split, sample.item)
            if place in self._places:
                raise PairingError(
                    f"suite '{whole.suite}': item '{sample.item}' of {sample.benchmark} has several"
                    " answers, and cannot be asked alone"
                )
            self._order[place] = len(self._order)
            self._places[place] = counts.get(sample.benchmark, 0)
            counts[sample.benchmark] = counts.get(sample.benchmark, 0) + 1
            if not 0 <= sample.value <= 1:
                raise PairingError(
                    f"suite '{whole.suite}': an answer to '{sample.item}' of {sample.benchmark} is"
                    f" worth {sample.value:g}, which is no share between 0 and 1"
                )
        for benchmark in whole.benchmarks:
            whole.score(benchmark, "validation")

    def __len__(self) -> int:
        """Return how many items there are."""
        return len(self._places)

    @property
    def items(self) -> tuple[Place, ...]:
        """All items in the suite's order."""
        return tuple(self._order)

    def requests(self, items: Iterable[Place]) -> dict[str, list[int]]:
        """Return the places of items by benchmark, in order."""
        asked: dict[str, list[int]] = {}
        for item in sorted(items, key=self._order.__getitem__):
            asked.setdefault(item[0], []).append(self._places[item])
        return asked

    def scores_of(self, samples: Iterable[Sample], like: SuiteScores) -> SuiteScores:
        """Return the scores of samples, in the suite's order; `like` is another part of them."""
        ordered = sorted(samples, key=lambda s: self._order[s.benchmark, s.split, s.item])
        metrics = {score.benchmark: (score.metric, score.version) for score in self.whole.scores}
        by_benchmark: dict[str, list[Sample]] = {}
        for sample in ordered:
            by_benchmark.setdefault(sample.benchmark, []).append(sample)
        scores = [
            score
            for name, each in by_benchmark.items()
            for score in summarize(each, *metrics[name])
        ]
        return SuiteScores(
            like.suite, like.suite_digest, tuple(scores), tuple(ordered), like.versions
        )


class AskedCandidate:
    """A candidate that is asked some items at a time; each item once.

    `ask` puts them to it. `before` are answers of an earlier time.
    """

    def __init__(
        self, name: str, places: ItemPlaces, ask: AskPlaces, before: SuiteScores | None = None
    ) -> None:
        self.name = name
        self._places = places
        self._ask = ask
        self._samples: dict[Place, Sample] = {}
        self._like = before
        if before is not None:
            self._take(before)

    @property
    def asked(self) -> int:
        """How many items it has answered, at any time."""
        return len(self._samples)

    @property
    def total(self) -> int:
        """How many items the suite has."""
        return len(self._places)

    @property
    def is_whole(self) -> bool:
        """Whether it has answered every item of the suite."""
        return self.asked == self.total

    def has_all(self, split: str) -> bool:
        """Whether it has answered every item of a split."""
        return all(item in self._samples for item in self._places.items if item[1] == split)

    def values(self, split: str) -> dict[tuple[str, str], float]:
        """Return what it has answered of a split, by benchmark and item."""
        return {(b, item): s.value for (b, of, item), s in self._samples.items() if of == split}

    def answer(self, split: str, items: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """Ask what it was not asked yet, and return the value of each item.

        Raises PairingError where it does not answer just what it was asked, and what asking raises.
        """
        wanted = [(benchmark, split, item) for benchmark, item in items]
        missing = [item for item in wanted if item not in self._samples]
        if missing:
            told = self._ask(self._places.requests(missing))
            given = {(s.benchmark, s.split, s.item) for s in told.samples}
            if given != set(missing):
                stray = sorted(given ^ set(missing))[0]
                raise PairingError(
                    f"{self.name} was asked {len(missing)} items of suite '{told.suite}' and"
                    f" answered others (for example '{stray[2]}' of {stray[0]}); score it without"
                    " `early_stopping`"
                )
            self._take(told)
        return {(b, item): self._samples[b, split, item].value for b, split, item in wanted}

    def ask_the_rest(self) -> SuiteScores:
        """Ask everything that it was not asked yet; return its whole scores."""
        for split in dict.fromkeys(item[1] for item in self._places.items):
            rest = [(b, item) for b, of, item in self._places.items if of == split]
            self.answer(split, rest)
        return self.scores()

    def scores(self) -> SuiteScores:
        """Return the scores of what it was asked so far."""
        assert self._like is not None
        return self._places.scores_of(self._samples.values(), self._like)

    def _take(self, told: SuiteScores) -> None:
        self._like = told
        for sample in told.samples:
            self._samples[sample.benchmark, sample.split, sample.item] = sample


def publish_partial(
    store: "ArtifactStore",
    checkpoint: "Artifact",
    suite: "Suite",
    scores: SuiteScores,
    total: int,
    because: str,
    against: str,
    role: Role,
    validation: float | None = None,
) -> "Artifact":
    """Publish what a candidate was asked, under the digest of its contents."""
    with store.attempt(PARTIAL) as attempt:
        attempt.write_bytes("scores.json", scores.to_json().encode())
        attempt.write_bytes("samples.parquet", scores.samples_to_parquet())
        said = {
            "checkpoint": {"kind": checkpoint.kind, "digest": checkpoint.digest},
            "suite": {"name": suite.name, "digest": suite.digest},
            "asked": len(scores.samples),
            "total": total,
            "because": because,
            "against": against,
            "role": role,
            "validation": validation,
        }
        attempt.write_json("left.json", said)
        return attempt.publish(**said)


def read_partial(store: "ArtifactStore", ref: "Ref | None", suite: str) -> PartialScores | None:
    """Read what a ref of scores points to, where that is partial scores on a suite, by digest.

    None where it points to something else, or the suite is another one. Raises ScoresError and
    DamagedArtifactError where it cannot be read.
    """
    from resources.errors import DamagedArtifactError

    if ref is None or ref.kind != PARTIAL:
        return None
    artifact = store.get(PARTIAL, ref.digest)
    said = artifact.manifest
    try:
        if said["suite"]["digest"] != suite:
            return None
        facts = (said["checkpoint"]["digest"], int(said["asked"]), int(said["total"]))
        reasons = (str(said["because"]), str(said["against"]), said["role"], said["validation"])
    except (KeyError, TypeError, ValueError):
        raise DamagedArtifactError(
            f"{artifact.uri}: the manifest does not say what was asked; `ronghe verify --repair`"
            " sets it aside, and the next refresh asks again"
        ) from None
    return PartialScores(artifact, read_scores(artifact), *facts, *reasons)


def whole_scores(store: "ArtifactStore", ref: "Ref | None", suite: str) -> SuiteScores | None:
    """Read what a ref of scores points to, where that is whole scores on a suite, by digest."""
    if ref is None or ref.kind != SCORES:
        return None
    artifact = store.find(SCORES, ref.digest)
    if artifact is None or artifact.manifest["suite"]["digest"] != suite:
        return None
    return read_scores(artifact)
