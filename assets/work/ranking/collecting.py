"""What competes on a suite: live models and candidates with their scores. Knows no Dagster."""

import gc
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.whole_models import live_models
from assets.work.ranking.kept_rows import Broken, EarlierBoard
from assets.work.scoring.partial_scores import PARTIAL, read_partial
from assets.work.scoring.scoring import SCORES, open_scores
from assets.work.upstream.entries import run_and_step, step_name
from eval_ops.errors import ScoresError
from eval_ops.scores import SuiteScores
from eval_ops.scores.leaderboard import Entry, KnownComparisons
from resources.errors import DamagedArtifactError, MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.scores.leaderboard import Kind
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore, Ref


@dataclass(frozen=True)
class RankedRecipe:
    """A ranked recipe has live candidates: partition keys, with expert set and coefficient.

    `plain_average` marks the recipe that every other one has to beat. `keep` says which candidates
    are written (merge_ops.recipes): the champion is, unless it is `none`. `accepted_conflicts` are
    those of licences that the recipe accepts by name.
    `structured` recipes merge no expert sets: their sets name what they are made of.
    """

    name: str
    suite: str
    plain_average: bool
    points: Mapping[str, tuple[str, str]]
    gate: Mapping[str, Any] = field(default_factory=dict[str, Any])
    keep: str = "champion"
    accepted_conflicts: tuple[str, ...] = ()
    structured: bool = False

    def meets(self, entry: Entry, runs: Collection[str]) -> bool:
        """Return whether the gate compares the recipe's candidates with a model.

        It is an expert; or, where the recipe is structured, what it is made of, of a run each step.
        """
        run = entry.name.rpartition("@")[0]
        if not self.structured:
            return entry.kind == "expert" and run not in runs
        members = {name for each, _ in self.points.values() for name in each.split("+")}
        return entry.recipe is None and (entry.name in members or run in members)


@dataclass(frozen=True)
class Contest:
    """A contest is everything that competes: live models and recipes, on their suites.

    What is `broken` is no competitor that left: its rows stay, marked. `imported` are files of
    scores from elsewhere, which are shown beside. `runs` are the suites that steps of training
    runs are scored on: they are single experts to the windows over them.
    """

    bases: Sequence[str]
    experts: Sequence[str]
    recipes: Sequence[RankedRecipe]
    suites: Mapping[str, Path]
    broken: Broken = field(default_factory=Broken)
    imported: Mapping[str, Path] = field(default_factory=dict[str, Path])
    runs: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])

    def recipe(self, name: str) -> RankedRecipe:
        """Find one recipe by name."""
        return next(recipe for recipe in self.recipes if recipe.name == name)


@dataclass(frozen=True)
class Left:
    """A candidate that was left early (early_stopping): why, and its mean on validation items.

    The mean is None where it was not asked all of them. `loose` says what is wrong with the reason:
    what it was left against is not there any more.
    """

    label: str
    recipe: str
    because: str
    validation: float | None
    role: str
    loose: str | None


@dataclass
class Collected:
    """What was collected for one suite: entries, how many have no scores, what is damaged.

    `damaged` goes by the name of a ref or of a checkpoint, and so does what was `left` early.
    """

    entries: list[Entry]
    unscored: int
    damaged: dict[str, str]
    left: dict[str, Left] = field(default_factory=dict[str, Left])

    def left_ahead(self, candidate: Entry) -> Left | None:
        """Return the best on validation items of what lost to the champion early, if it is ahead.

        It was the one to judge, and was judged: the next best one gets no turn in its place.
        """
        lost = [
            (each.validation, each.label, each)
            for each in self.left.values()
            if each.role == "champion" and each.validation is not None and each.loose is None
        ]
        best = max(lost, default=None, key=lambda each: each[:2])
        ahead = best is not None and best[0] > candidate.scores.mean("validation").value
        return best[2] if best is not None and ahead else None


UNREADABLE = (DamagedArtifactError, MissingArtifactError, ScoresError)
"""What reading scores and answers raises where they rotted, are gone, or are none."""


def unreadable_answers(compared: Iterable[Entry]) -> str:
    """Read the answers of those that were compared, and say by name what is wrong with them."""
    told: list[str] = []
    for entry in compared:
        try:
            entry.scores.check_samples()
        except UNREADABLE as error:
            told.append(f"scores of {entry.label}: {type(error).__name__}: {error}")
    return "; ".join(told)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Pause Python's collector of cycles, which walks all that was read again and again.

    Of thousands of scores, which stay and have no cycles, that was a third of the time.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def collect_entries(
    store: "ArtifactStore",
    contest: Contest,
    suite: "Suite",
    recipes: Sequence[RankedRecipe] | None = None,
    known: KnownComparisons | None = None,
    earlier: EarlierBoard | None = None,
    checked: bool = True,
) -> Collected:
    """Collect every live model and candidate that is scored; count those that are not.

    Scores count when they are of the checkpoint that the name stands for now, on just this suite.
    Of the contest's recipes only `recipes` are looked at, where they are given, and of broken ones
    those with rows on the `earlier` leaderboard. Samples of scores are read once, so that a fault
    in them is that of one entry; those that an earlier leaderboard has read, as `known` says, and
    all where they need not be `checked`, are read only where they are compared.
    """
    read = (known.read if known else frozenset[str]()) if checked else None
    steps = scored_steps(store, contest, suite.name)
    members = (*contest.bases, *contest.experts, *steps)
    models, damaged = live_models(store, members)
    scores = names.table_of(store, f"model_scores/{suite.name}", members)
    found = Collected([], 0, {**damaged, **scores.damaged})
    groups: tuple[tuple[Kind, Sequence[str]], ...] = (
        ("base", contest.bases),
        ("expert", (*contest.experts, *steps)),
    )
    for kind, group in groups:
        for name in group:
            pair = scores.refs.get(name), models.get(name)
            present = _scores_of(store, *pair, suite, read, found.damaged, f"scores of {name}")
            found.unscored += present is None
            if present is not None:
                of_model, digest, source = present
                found.entries.append(Entry(kind, name, of_model, digest=digest, source=source))
    for recipe in contest.recipes if recipes is None else recipes:
        if recipe.suite == suite.name:
            _add_candidates(store, recipe, suite, read, found)
    if earlier is not None:
        for name in contest.broken.recipes:
            average, points = earlier.is_average(suite.name, name), earlier.points(suite.name, name)
            kept = RankedRecipe(name, suite.name, average, points)
            _add_candidates(store, kept, suite, read, found)
    return found


def scored_steps(store: "ArtifactStore", contest: Contest, suite: str) -> list[str]:
    """Return the steps of training runs that are scored on a suite, in the order of their runs."""
    asked = [run for run, suites in contest.runs.items() if suite in suites]
    if not asked:
        return []
    steps = [run_and_step(str(each)) for each in names.refs_of(store, names.RUN_STEP)]
    return [step_name(run, step) for run, step in sorted(steps) if run in asked]


def _add_candidates(
    store: "ArtifactStore",
    recipe: RankedRecipe,
    suite: "Suite",
    read: Set[str] | None,
    found: Collected,
) -> None:
    kind = "average" if recipe.plain_average else "candidate"
    asset = names.scores(recipe.name)
    checkpoints = names.table_of(store, names.merged_checkpoint(recipe.name), recipe.points)
    scores = names.table_of(store, asset, recipe.points)
    found.damaged.update(checkpoints.damaged)
    found.damaged.update(scores.damaged)
    for partition, (experts, coefficient) in recipe.points.items():
        if _was_left(store, recipe, partition, checkpoints.refs, scores.refs, suite, found):
            continue
        pair, name = (scores.refs.get(partition), checkpoints.refs.get(partition)), partition
        called = f"{asset} [{name}]"
        present = _scores_of(store, *pair, suite, read, found.damaged, called)
        found.unscored += present is None
        if present is not None:
            label, members = f"{recipe.name} {experts} {coefficient}", tuple(experts.split("+"))
            of_point, digest, source = present
            found.entries.append(
                Entry(kind, label, of_point, recipe.name, members, coefficient, digest, source)
            )


def _was_left(
    store: "ArtifactStore",
    recipe: RankedRecipe,
    partition: str,
    checkpoints: "Mapping[str | None, Ref]",
    scores: "Mapping[str | None, Ref]",
    suite: "Suite",
    found: Collected,
) -> bool:
    """Note a candidate that was left early; whether it was."""
    ref, checkpoint = scores.get(partition), checkpoints.get(partition)
    if ref is None or checkpoint is None or ref.kind != PARTIAL:
        return False
    name = f"{names.scores(recipe.name)} [{partition}]"
    try:
        partial = read_partial(store, ref, suite.digest)
    except UNREADABLE as error:
        found.damaged[name] = f"{type(error).__name__}: {error}"
        return True
    if partial is None or partial.checkpoint != checkpoint.digest:
        return False
    against = {each.digest for key, each in checkpoints.items() if key in recipe.points}
    if partial.role == "champion":
        champion = names.ref_of(store, names.champion(recipe.name))
        against = {champion.digest} if champion is not None else set()
    loose = None
    if partial.against not in against:
        loose = (
            f"was left early ({partial.because}), and what it was left against"
            f" ({partial.against[:12]}) is no candidate of the recipe any more, or no champion;"
            " materialize its scores again: the rest is asked"
        )
    label = " ".join(part for part in (recipe.name, *recipe.points[partition]) if part)
    found.left[name] = Left(
        label, recipe.name, partial.because, partial.validation, partial.role, loose
    )
    return True


def _scores_of(
    store: "ArtifactStore",
    scores: "Ref | None",
    checkpoint: "Ref | None",
    suite: "Suite",
    read: Set[str] | None,
    damaged: dict[str, str],
    name: str,
) -> tuple[SuiteScores, str, str] | None:
    """Scores, checkpoint digest and scores' content digest behind two refs, when these belong
    together and to the suite. Samples are read now unless their scores are among those that were
    `read`; with None none are. What is wrong with scores that cannot be read goes into `damaged`
    under the `name`.
    """
    if scores is None or checkpoint is None:
        return None
    try:
        artifact = store.get(SCORES, scores.digest)
        scored = artifact.manifest["checkpoint"]["digest"]
        if (scored, artifact.manifest["suite"]["digest"]) != (checkpoint.digest, suite.digest):
            return None
        source = artifact.content_digest
        checked = read is not None and source not in read
        return open_scores(artifact, checked), scored, source
    except UNREADABLE as error:
        damaged[name] = f"{type(error).__name__}: {error}"
    except (KeyError, TypeError):
        damaged[name] = f"the manifest of scores {scores.digest} does not say of what they are"
    return None
