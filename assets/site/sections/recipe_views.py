"""Recipes, what they make, their champions and searches, as the site shows them."""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from assets.site.facts import CatalogFacts, RecipeFacts
from assets.site.sections.composition_views import course_view
from assets.site.sections.scores_seen import SeenScores, rounded
from assets.site.view import (
    ChampionView,
    CheckpointView,
    Cosines,
    RecipeView,
    Rows,
    StudyView,
    SuiteView,
)
from assets.work import names
from assets.work.merging.manifests import COST
from assets.work.merging.studying import MERGE_PLAN
from assets.work.merging.virtual_checkpoints import bytes_of
from assets.work.records.champion_history import ChampionState, champion_state, reason_of
from assets.work.scoring.searching import STUDY_FILE
from eval_ops.errors import EvalError
from eval_ops.scores import scores_digest
from eval_ops.search import Study
from resources.errors import ResourceError

if TYPE_CHECKING:
    from merge_ops.recipes import Recipe, Steps
    from resources.store import ArtifactStore

MOST_COSINES = 8
"""Expert sets of a recipe whose cosines its page shows: those with the most experts."""
MOST_TRIALS = 2000
"""Trials of a study that its page shows."""
MOST_CARD = 40_000
"""Characters of a champion's README."""


def checkpoint_views(
    store: "ArtifactStore",
    name: str,
    recipe: RecipeFacts,
    suite: tuple[SuiteView, str] | None,
    seen: SeenScores,
    problems: dict[str, str],
) -> list[CheckpointView]:
    """Show what a recipe makes, each with its scores where these are of its content today."""
    merged = names.table_of(store, names.merged_checkpoint(name), recipe.points)
    problems.update(merged.damaged)
    sources: dict[str, str] = {}
    if suite is not None:
        view, suite_digest = suite
        scored = names.table_of(store, names.scores(name), recipe.points)
        problems.update(scored.damaged)
        for partition in recipe.points:
            ref, scores = merged.refs.get(partition), scored.refs.get(partition)
            if ref is None or scores is None:
                continue
            if scores_digest(ref.digest, suite_digest) == scores.digest:
                sources[partition] = scores.digest
        seen.read(store, dict.fromkeys(sources.values(), view))
    found: list[CheckpointView] = []
    for partition, (experts, coefficient) in recipe.points.items():
        ref = merged.refs.get(partition)
        if ref is None:
            continue
        source = sources.get(partition, "")
        test, validation = seen.known.get(source, (None, None))
        found.append(
            CheckpointView(
                digest=ref.digest,
                recipe=name,
                experts=experts,
                coefficient=coefficient,
                at=ref.current.at,
                by=ref.current.by or "",
                models=dict(ref.fields.get("models") or {}),
                warnings=tuple(map(str, ref.fields.get("warnings") or ())),
                source=source,
                test=test,
                validation=validation,
            )
        )
    return found


def recipe_view(
    store: "ArtifactStore",
    name: str,
    recipe: RecipeFacts,
    made: int,
    problems: dict[str, str],
) -> RecipeView:
    """Show a recipe: its documents, its points, its champion, and how its experts relate."""
    result = recipe.steps.result
    documents = documents_of(recipe.steps)
    champion: ChampionView | None = None
    try:
        state = champion_state(store, name) if result.suite else None
        champion = _champion(store, state) if state is not None else None
    except ResourceError as error:
        problems[f"champion of {name}"] = f"{type(error).__name__}: {error}"
    sets = tuple(dict.fromkeys(experts for experts, _ in recipe.points.values()))
    return RecipeView(
        name=name,
        shell=shlex.quote(names.champion(name)),
        method=result.merge_method,
        suite=result.suite or "",
        documents=documents,
        text="\n---\n".join(map(_yaml, documents)),
        coefficients=tuple((each.id, _plain(each.values)) for each in result.coefficients()),
        sets=sets,
        checkpoints=made,
        champion=champion,
        cosines=_cosines(store, sets, problems),
        title=result.title or "",
        description=result.description or "",
        course=course_view(store, name, recipe, problems),
    )


def broken_recipes(facts: CatalogFacts) -> list[RecipeView]:
    """Show the recipes whose files cannot be read: their names, and what is wrong."""
    return [
        RecipeView(name, shlex.quote(name), "", "", (), "", (), (), 0, broken=problem)
        for name, problem in facts.contest.broken.recipes.items()
        if name not in facts.recipes
    ]


def study_views(
    store: "ArtifactStore", name: str, recipe: RecipeFacts, problems: dict[str, str]
) -> list[StudyView]:
    """Show the searches of a recipe, an expert set each; none where it does not search."""
    if not recipe.steps.result.search:
        return []
    live = {experts for experts, _ in recipe.points.values()}
    found: list[StudyView] = []
    for partition, ref in names.table_of(store, names.search(name)).refs.items():
        if partition not in live:
            continue
        try:
            text = store.get(ref.kind, ref.digest).read_bytes(STUDY_FILE)
            found.append(_study(name, str(partition), ref.digest, Study.from_json(text)))
        except (ResourceError, EvalError) as error:
            problems[f"search of {name} [{partition}]"] = f"{type(error).__name__}: {error}"
    return found


def _study(recipe: str, experts: str, digest: str, study: Study) -> StudyView:
    best = study.best
    return StudyView(
        recipe=recipe,
        experts=experts,
        digest=digest,
        sampler=study.sampler,
        seed=study.seed,
        ended=study.ended or "",
        objectives=study.objectives,
        best=best.number if best is not None else -1,
        front=tuple(each.number for each in study.front),
        trials=tuple(
            (
                each.number,
                _plain(each.point),
                None if each.values is None else rounded(each.values),
                each.digest or "",
                each.problem or "",
            )
            for each in study.trials[:MOST_TRIALS]
        ),
    )


def _champion(store: "ArtifactStore", state: ChampionState) -> ChampionView:
    entry = state.ref.current
    artifact = store.get(state.ref.kind, state.digest)
    card = ""
    if not artifact.virtual and "README.md" in artifact.files:
        card = artifact.read_bytes("README.md").decode("utf-8", "replace")[:MOST_CARD]
    return ChampionView(
        digest=state.digest,
        experts=str(entry.fields.get("experts") or ""),
        coefficient=str(entry.fields.get("coefficient") or ""),
        at=entry.at,
        by=entry.by or "",
        because=reason_of(entry),
        stale=state.stale or "",
        written=not artifact.virtual,
        nbytes=bytes_of(artifact),
        card=card,
        cost=_plain(artifact.manifest.get(COST) or {}),
    )


def _cosines(
    store: "ArtifactStore", sets: tuple[str, ...], problems: dict[str, str]
) -> tuple[Cosines, ...]:
    """How the task vectors of the largest sets relate, as their plans say."""
    found: list[Cosines] = []
    for experts in sorted(sets, key=lambda each: (-each.count("+"), each))[:MOST_COSINES]:
        if "+" not in experts:
            continue
        try:
            plan = names.resolve(store, MERGE_PLAN, experts)
            told = plan.read_json("study.json") if plan is not None else {}
        except (ResourceError, ValueError) as error:
            problems[f"merge_plan [{experts}]"] = f"{type(error).__name__}: {error}"
            continue
        relation = told.get("interference") or {}
        cosine = _rows(relation.get("cosine") or ())
        layers = ((layer, _rows(rows)) for layer, rows in relation.get("by_layer") or ())
        if cosine:
            by_layer = tuple((layer, rows) for layer, rows in layers if rows)
            found.append((tuple(map(str, relation["names"])), cosine, by_layer))
    return tuple(found)


def _rows(rows: Sequence[Sequence[float | None]]) -> Rows:
    """A matrix as a page shows it; empty where a number of it is not known."""
    known = [[value for value in row if value is not None] for row in rows]
    whole = all(len(row) == len(rows) for row in known)
    return tuple(rounded(row) for row in known) if whole else ()


def documents_of(steps: "Steps") -> tuple[dict[str, Any], ...]:
    """Return the documents of a recipe's file as plain data, the result last."""
    return tuple(_document(each, each is steps.result) for each in steps.recipes)


def _document(recipe: "Recipe", is_result: bool) -> dict[str, Any]:
    """A recipe as its file says it, in our order: what is ours comes last."""
    from merge_ops.recipes.document import recipe_document

    ours = {
        "experts": recipe.experts,
        "sweep": recipe.sweep,
        "search": recipe.search,
        "suite": recipe.suite,
        "gate": recipe.gate,
        "keep": recipe.keep,
    }
    named = {} if is_result else {"name": recipe.name}
    document = {**named, **recipe_document(recipe, {})}
    return _plain({**document, **{key: value for key, value in ours.items() if value}})


def _plain(value: Mapping[str, Any]) -> dict[str, Any]:
    """A document as JSON has it."""
    return json.loads(json.dumps(value, default=_plain_part))


def _plain_part(value: object) -> object:
    """What JSON does not know: mappings that are no dicts; the rest as text."""
    return dict(value) if isinstance(value, Mapping) else str(value)


def _yaml(document: Mapping[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True)
