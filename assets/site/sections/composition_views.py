"""What is made in several steps, of mixtures, soups or windows: its parts, and how they follow."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from assets.site.facts import RecipeFacts
from assets.site.sections.scores_seen import rounded
from assets.site.view import CompositionView, CourseView, PartView, StudyView
from assets.work import names
from assets.work.scoring.run_courses import FILE, RAW
from resources.errors import ResourceError

if TYPE_CHECKING:
    from merge_ops.recipes import Recipe
    from resources.store import ArtifactStore, Ref

MOST_SETS = 60
"""Expert sets of a recipe whose compositions have pages."""
SOUP = "soup"


def composition_views(
    store: "ArtifactStore", name: str, recipe: RecipeFacts, studies: Iterable[StudyView] = ()
) -> list[CompositionView]:
    """Show what a recipe makes of each expert set, part by part; nothing where it is one merge."""
    steps = recipe.steps.recipes
    result = recipe.steps.result
    if len(steps) == 1 and result.structure is None and not result.soup:
        return []
    refs = {
        each.name: names.table_of(store, names.step(name, each.name)).refs for each in steps[:-1]
    }
    chosen = {each.experts: _members(each) for each in studies}
    points: dict[str, list[str]] = {}
    for experts, coefficient in recipe.points.values():
        points.setdefault(experts, []).append(coefficient)
    merged = names.table_of(store, names.merged_checkpoint(name)).refs
    found: list[CompositionView] = []
    for experts, coefficients in list(points.items())[:MOST_SETS]:
        keys = {point: f"{point}|{experts}" if experts else point for point in coefficients}
        made = {point: merged[key] for point, key in keys.items() if key in merged}
        parts = [_part(each, experts, _of_set(refs[each.name], experts)) for each in steps[:-1]]
        last = _part(result, experts, next(iter(made.values()), None), name, chosen.get(experts))
        digests = tuple((point, ref.digest) for point, ref in made.items())
        found.append(CompositionView(name, experts, (*parts, last), digests))
    return found


def _of_set(refs: "Mapping[str | None, Ref]", experts: str) -> "Ref | None":
    """What a step made of a set; a step that takes no experts has one ref for all."""
    return refs.get(experts or None, refs.get(None))


def _part(
    recipe: "Recipe",
    experts: str,
    ref: "Ref | None",
    name: str = "",
    members: Sequence[tuple[str, float]] | None = None,
) -> PartView:
    """One step: what it is, what goes in, and what it made."""
    merged = tuple(experts.split("+")) if experts and recipe.experts else ()
    sources = tuple(dict.fromkeys([*recipe.referenced_models, *merged]))
    if members is not None:
        sources = tuple(each for each, _ in members)
    window = recipe.window
    return PartView(
        name=name or recipe.name,
        kind=SOUP if recipe.soup else recipe.structure or "merge",
        method=str(recipe.soup or recipe.merge_method),
        sources=sources if window is None else (str(window.run), *sources),
        weights=tuple(members or ()),
        digest=ref.digest if ref is not None else "",
        at=ref.current.at if ref is not None else "",
        by=(ref.current.by or "") if ref is not None else "",
    )


def _members(study: StudyView) -> tuple[tuple[str, float], ...]:
    """The models of a soup, each with its weight."""
    point = next((point for number, point, *_ in study.trials if number == study.best), {})
    prefix, end = "weight[", "]"
    return tuple(
        (name[len(prefix) : -len(end)], float(value))
        for name, value in point.items()
        if name.startswith(prefix) and name.endswith(end) and value
    )


def course_view(
    store: "ArtifactStore", name: str, recipe: RecipeFacts, problems: dict[str, str]
) -> CourseView | None:
    """Show windows over a training run beside its steps, by newest step; None without a window."""
    window = recipe.steps.result.window
    if window is None:
        return None
    try:
        artifact = names.resolve(store, names.course(name))
        rows = artifact.read_json(FILE) if artifact is not None else []
        lines: dict[str, list[tuple[float, ...]]] = {}
        for row in rows:
            numbers = (row["mean"], row["95 % from"], row["95 % to"])
            step = (float(row["newest step"]), *rounded([each / 100 for each in numbers]))
            lines.setdefault(str(row["window"]), []).append(step)
    except (ResourceError, KeyError, TypeError, ValueError) as error:
        problems[f"course of {name}"] = f"{type(error).__name__}: {error}"
        return None
    raw = tuple(lines.pop(RAW, ()))
    return CourseView(str(window.run), raw, tuple((key, tuple(of)) for key, of in lines.items()))
