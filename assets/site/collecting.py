"""From store and catalog to everything that the site shows. Knows no Dagster."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from assets.site.facts import CatalogFacts
from assets.site.sections.answer_views import answer_views
from assets.site.sections.boards import board, board_rows, load_suites, suite_view, suites_of_rows
from assets.site.sections.changes import Failure, changes_of
from assets.site.sections.composition_views import composition_views
from assets.site.sections.licence_views import licence_views
from assets.site.sections.model_views import model_views
from assets.site.sections.recipe_views import (
    broken_recipes,
    checkpoint_views,
    recipe_view,
    study_views,
)
from assets.site.sections.scores_seen import SeenScores
from assets.site.view import (
    AnswersView,
    BoardRow,
    CatalogView,
    CheckpointView,
    CompositionView,
    ModelView,
    RecipeView,
    SplitScores,
    StudyView,
    SuiteView,
)
from assets.work.records.withdrawal import Withdrawal, rests_on, told, withdrawals

if TYPE_CHECKING:
    from resources.store import ArtifactStore

Shown = TypeVar("Shown", ModelView, CheckpointView, BoardRow)


class EarlierSite:
    """What the site before has read: models by name, scores by digest. Nothing where there is none.

    What it says of a content is true for ever; so a change costs reading what is new.
    """

    def __init__(
        self,
        models: Iterable[Mapping[str, Any]] = (),
        checkpoints: Iterable[Any] = (),
        suites: Iterable[Any] = (),
    ) -> None:
        self.models = {str(each["name"]): each for each in models}
        self.order = {
            str(each["name"]): tuple(name for name, _ in each["benchmarks"]) for each in suites
        }
        self.seen = SeenScores()
        for each in checkpoints:
            if each["source"]:
                splits = _splits(each["test"]), _splits(each["validation"])
                self.seen.known[str(each["source"])] = splits

    def scores_in(self, suites: Mapping[str, SuiteView]) -> SeenScores:
        """Return what it knows of scores; nothing where benchmarks have another order now."""
        order = {name: tuple(each for each, _ in v.benchmarks) for name, v in suites.items()}
        same = all(self.order.get(name) == names for name, names in order.items())
        return self.seen if same else SeenScores()


def collect_view(
    store: "ArtifactStore",
    facts: CatalogFacts,
    failures: Iterable[Failure] = (),
    before: EarlierSite | None = None,
) -> CatalogView:
    """Collect what the site shows: refs in bulk, and of artifacts what the site before lacks.

    What cannot be read is one of the view's problems, and the rest is shown. Raises StoreError
    where the store does not answer.
    """
    before = before or EarlierSite()
    problems: dict[str, str] = {}
    loaded = load_suites(facts.contest, problems)
    views = {name: suite_view(suite) for name, suite in loaded.items()}
    digests = {name: (views[name], suite.digest) for name, suite in loaded.items()}
    seen = before.scores_in(views)
    models = model_views(store, facts, digests, seen, before.models, problems)
    checkpoints: list[CheckpointView] = []
    recipes: list[RecipeView] = []
    studies: list[StudyView] = []
    compositions: list[CompositionView] = []
    for name, recipe in facts.recipes.items():
        suite = digests.get(recipe.suite)
        made = checkpoint_views(store, name, recipe, suite, seen, problems)
        checkpoints += made
        recipes.append(recipe_view(store, name, recipe, len(made), problems))
        searched = study_views(store, name, recipe, problems)
        studies += searched
        compositions += composition_views(store, name, recipe, searched)
    recipes += broken_recipes(facts)
    marks = withdrawals(store)
    resting = _resting(store, marks, [*models, *checkpoints])
    models = tuple(_marked(each, resting) for each in models)
    checkpoints = [_marked(each, resting) for each in checkpoints]
    for digest, problem in seen.problems.items():
        problems[f"scores {digest[:12]}"] = problem
    suites, boards, imported = _boards(store, views, recipes, problems)
    boards = {name: tuple(_marked(row, resting) for row in rows) for name, rows in boards.items()}
    answers: list[AnswersView] = []
    for name, suite in loaded.items():
        more = _by_rank(facts, checkpoints, name)
        answers += answer_views(store, suite, boards.get(name, ()), more, problems)
    changes, hidden = changes_of(store, facts, checkpoints, marks.values(), failures, problems)
    licences, unlisted = licence_views(store, facts, models, checkpoints)
    return CatalogView(
        name=facts.name,
        suites=suites,
        boards=boards,
        models=models,
        recipes=tuple(recipes),
        checkpoints=tuple(checkpoints),
        studies=tuple(studies),
        compositions=tuple(compositions),
        changes=changes,
        hidden=hidden,
        licences=licences,
        unlisted=unlisted,
        answers=tuple(answers),
        problems=tuple(sorted(problems.items())),
        imported=imported,
    )


def _resting(
    store: "ArtifactStore",
    marks: Mapping[str, Withdrawal],
    shown: Iterable[ModelView | CheckpointView],
) -> dict[str, str]:
    """Why contents should not be used, by digest: they, or what they were made from, are withdrawn.

    Where nothing is, nothing more is read.
    """
    digests = [each.digest for each in shown if each.digest]
    return {digest: told(found) for digest, found in rests_on(store, digests, marks).items()}


def _marked(shown: Shown, resting: Mapping[str, str]) -> Shown:
    because = resting.get(shown.digest)
    return shown if because is None else replace(shown, withdrawn=because)


def _by_rank(
    facts: CatalogFacts, checkpoints: Iterable[CheckpointView], suite: str
) -> dict[str, str]:
    """Labels by digest of what is scored on a suite, the best on validation items first."""
    scored = [
        (each.validation.mean[0], each)
        for each in checkpoints
        if facts.recipes[each.recipe].suite == suite
        if each.validation is not None and each.validation.mean is not None
    ]
    scored.sort(key=lambda pair: (-pair[0], pair[1].recipe, pair[1].experts, pair[1].coefficient))
    return {each.digest: each.label for _, each in scored}


def _boards(
    store: "ArtifactStore",
    views: Mapping[str, SuiteView],
    recipes: Iterable[RecipeView],
    problems: dict[str, str],
) -> tuple[tuple[SuiteView, ...], dict[str, tuple[BoardRow, ...]], tuple[Mapping[str, Any], ...]]:
    """The suites with rows, or that can be asked, their leaderboards, and scores from elsewhere."""
    rows, imported = board_rows(store, problems)
    shown = {**suites_of_rows(rows), **views}
    champions = {each.name: each.champion.digest for each in recipes if each.champion is not None}
    boards = {name: board(rows.get(name, []), shown[name], champions) for name in shown}
    return tuple(shown[name] for name in sorted(shown)), boards, imported


def _splits(written: Mapping[str, Any] | None) -> SplitScores | None:
    """Scores as they were written into the site before."""
    if written is None:
        return None
    cells = tuple(None if each is None else tuple(each) for each in written["cells"])
    mean = written["mean"]
    return SplitScores(cells, None if mean is None else tuple(mean))  # type: ignore[arg-type]
