"""What the catalog site shows, as plain data: nothing here knows a store, a page or Dagster.

Numbers of scores are shares between 0 and 1. Every field may hold what a stranger wrote; pages
escape it. A view of the same store and catalog is the same, to the last digit.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Interval = tuple[float, float, float]
"""A value and the ends of its 95 % interval."""
Cell = tuple[float, float, float, int]
"""A benchmark's value, the ends of its interval, and its number of items."""
Rows = tuple[tuple[float, ...], ...]
Cosines = tuple[tuple[str, ...], Rows, tuple[tuple[int | None, Rows], ...]]
"""Names, the cosines between their task vectors, and these by layer (None: in no layer)."""


@dataclass(frozen=True)
class SplitScores:
    """Scores of one checkpoint on one suite's `test` or `validation` items.

    `cells` has one entry a benchmark, in the suite's order; None where there are no such items.
    """

    cells: tuple[Cell | None, ...]
    mean: Interval | None


@dataclass(frozen=True)
class SuiteView:
    """A suite: its name, what its file says of it, and its benchmarks as (name, title)."""

    name: str
    description: str
    benchmarks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class BoardRow:
    """One row of a suite's leaderboard.

    `against` has, for `base`, `best` (the best single expert) and `average`, a verdict, the
    difference of means and the ends of its interval; a side is left out where there is none.
    `stale` says why the row is an old one, `withdrawn` why it should not be used. `champion` marks
    the recipe's promoted checkpoint.
    """

    label: str
    kind: str
    recipe: str
    experts: tuple[str, ...]
    coefficient: str
    digest: str
    cells: tuple[Cell, ...]
    mean: Interval
    validation: float | None
    against: Mapping[str, tuple[str, float, float, float]]
    champion: bool = False
    stale: str = ""
    withdrawn: str = ""


@dataclass(frozen=True)
class LicenceView:
    """The licence that holds for a model, or for what a recipe merges of one set.

    `licence` is the id of the strictest one and `called` its name, `rank` how strict it is.
    `inputs` are names with licences, `deciding` those inputs that the licence comes from, `duties`
    what whoever passes it on has to do, `conflicts` what does not go together. `page` is where the
    site tells more.
    """

    subject: str
    kind: str
    page: tuple[str, ...]
    licence: str
    called: str
    rank: int = 0
    inputs: tuple[tuple[str, str], ...] = ()
    deciding: tuple[str, ...] = ()
    duties: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelView:
    """An upstream model. `card` is the text of its README, cut.

    `layers` are the norms of the task vector by layer, with None for what is in no layer, as the
    `study` of that digest has them. `scores` are those of test items by suite.

    `shell` and `python` are the name as a command line and as Python have it. `title` is what
    models.yaml calls it for people.
    """

    name: str
    shell: str
    python: str
    base: str
    kind: str
    source: str
    licence: str
    description: str
    digest: str = ""
    at: str = ""
    by: str = ""
    revision: str = ""
    nbytes: int = 0
    norm: float | None = None
    changed: float | None = None
    layers: tuple[tuple[int | None, float], ...] = ()
    study: str = ""
    card: str = ""
    scores: Mapping[str, SplitScores] = field(default_factory=dict[str, SplitScores])
    broken: str = ""
    withdrawn: str = ""
    title: str = ""


@dataclass(frozen=True)
class CheckpointView:
    """A merged checkpoint, under the name that a recipe gives it.

    `models` are what went in, by name with digest. `test` and `validation` are scores on the
    recipe's suite, `source` their digest.
    """

    digest: str
    recipe: str
    experts: str
    coefficient: str
    at: str
    by: str
    models: Mapping[str, str]
    warnings: tuple[str, ...] = ()
    source: str = ""
    test: SplitScores | None = None
    validation: SplitScores | None = None
    withdrawn: str = ""

    @property
    def label(self) -> str:
        """What a leaderboard calls it: `ties herbs+idioms density=0.3`."""
        parts = (self.recipe, self.experts, self.coefficient)
        return " ".join(part for part in parts if part and part != "default")


@dataclass(frozen=True)
class ChampionView:
    """A recipe's champion: its digest, its point, since when, why, by whom, and what is stale.

    `card` is its README where it is written, else empty; `nbytes` its size. `cost` is what its
    merge took, as its manifest says it: seconds, bytes, GPU-seconds; empty of a virtual one.
    """

    digest: str
    experts: str
    coefficient: str
    at: str
    by: str
    because: str
    stale: str
    written: bool
    nbytes: int
    card: str = ""
    cost: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True)
class CourseView:
    """Scores over the steps of a training run: of the steps themselves, and of windows over them.

    A point is (newest step, mean, low, high); `merged` goes by coefficient.
    """

    run: str
    raw: Rows
    merged: tuple[tuple[str, Rows], ...]


@dataclass(frozen=True)
class PartView:
    """A part of a composition: a step, what kind of step that is, and what it made of one set.

    `sources` are models and earlier steps, by name; `weights` are those of a soup's members. The
    digest is empty where nothing is made yet.
    """

    name: str
    kind: str
    method: str
    sources: tuple[str, ...]
    weights: tuple[tuple[str, float], ...] = ()
    digest: str = ""
    at: str = ""
    by: str = ""


@dataclass(frozen=True)
class CompositionView:
    """What a recipe makes of one expert set in several steps, or as mixture, soup or window.

    `parts` are in the order of the file, the result last; `made` are its points with digests.
    """

    recipe: str
    experts: str
    parts: tuple[PartView, ...]
    made: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class RecipeView:
    """A recipe: its file as a document, its points, and its champion.

    `documents` are its steps, the last one its result. `coefficients` are the ids of its points
    with the values that each stands for. `cosines` tell for expert sets how task vectors relate:
    names, rows of the matrix, such rows by layer. `title` and `description` are for people. A
    `course` has a recipe of windows over a training run.
    """

    name: str
    shell: str
    method: str
    suite: str
    documents: tuple[Mapping[str, Any], ...]
    text: str
    coefficients: tuple[tuple[str, Mapping[str, Any]], ...]
    sets: tuple[str, ...]
    checkpoints: int
    champion: ChampionView | None = None
    cosines: tuple[Cosines, ...] = ()
    broken: str = ""
    title: str = ""
    description: str = ""
    course: CourseView | None = None


@dataclass(frozen=True)
class StudyView:
    """A search on one expert set. A trial is (number, point, values, digest, problem)."""

    recipe: str
    experts: str
    digest: str
    sampler: str
    seed: int
    ended: str
    objectives: tuple[str, ...]
    best: int
    front: tuple[int, ...]
    trials: tuple[tuple[int, Mapping[str, Any], tuple[float, ...] | None, str, str], ...]


@dataclass(frozen=True)
class Change:
    """Something that changed: when, what kind of thing, which, what it is now, why, by whom.

    `page` is the place on the site that tells more: `("model", NAME)`, `("recipe", NAME)`; empty
    where there is none.
    """

    at: str
    kind: str
    subject: str
    page: tuple[str, ...]
    what: str
    because: str
    by: str


@dataclass(frozen=True)
class AnswersView:
    """All answers of some checkpoints on one benchmark's test items, question by question.

    `models` are labels with digests. `items` are (id, question, choices, right choice);
    `values[m][i]` is the share of full marks, `choices[m][i]` what was chosen (-1: nothing), and
    `texts[m][i]` what was written. `hidden` counts items that are left out.
    """

    suite: str
    benchmark: str
    title: str
    models: tuple[tuple[str, str], ...]
    items: tuple[tuple[str, str, tuple[str, ...], int], ...]
    values: tuple[tuple[float, ...], ...]
    choices: tuple[tuple[int, ...], ...]
    texts: tuple[tuple[str, ...], ...] = ()
    hidden: int = 0


@dataclass(frozen=True)
class CatalogView:
    """Everything that the site shows of one catalog.

    `problems` are parts that could not be read, each with what is wrong. `hidden` counts older
    changes that are left out, `unlisted` merges whose licences are. `imported` are scores from
    elsewhere, as the leaderboard has them: model, benchmark, score, low, high, n, source.
    """

    name: str
    suites: tuple[SuiteView, ...] = ()
    boards: Mapping[str, tuple[BoardRow, ...]] = field(
        default_factory=dict[str, tuple[BoardRow, ...]]
    )
    models: tuple[ModelView, ...] = ()
    recipes: tuple[RecipeView, ...] = ()
    checkpoints: tuple[CheckpointView, ...] = ()
    studies: tuple[StudyView, ...] = ()
    compositions: tuple[CompositionView, ...] = ()
    changes: tuple[Change, ...] = ()
    hidden: int = 0
    licences: tuple[LicenceView, ...] = ()
    unlisted: int = 0
    answers: tuple[AnswersView, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    imported: tuple[Mapping[str, Any], ...] = ()
