"""What a name stands for when two checkpoints are compared or one is promoted. Knows no Dagster.

A name is a model's, `RECIPE/champion` or `champion/RECIPE`, `RECIPE/merged_checkpoint[PARTITION]`
or `RECIPE[PARTITION]`, a label of the leaderboard (`ties herbs+idioms density=0.3`), a digest or
its first characters, or whatever else `ronghe ls` prints: the rest is asked of the one reader of
names, assets.work.records.stored_names. First characters must name one content of the whole store.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.work import names
from assets.work.merging.whole_models import live_models
from assets.work.ranking.collecting import Contest
from assets.work.ranking.kept_rows import read_board
from assets.work.records.stored_names import HEX, LEAST, LOADABLE, resolve_name
from assets.work.scoring.scoring import SCORES, open_scores
from assets.work.upstream.packed_models import MODEL
from eval_ops.scores import SuiteScores, scores_digest
from merge_ops.errors import did_you_mean
from resources.errors import DamagedArtifactError, MissingArtifactError

if TYPE_CHECKING:
    from eval_ops.suites import Suite
    from resources.store import ArtifactStore


@dataclass(frozen=True)
class NamedCheckpoint:
    """A checkpoint and what it is called. Of a merged one the recipe, expert set and coefficient.

    A digest that several recipes made is there once for each.
    """

    label: str
    digest: str
    recipe: str | None = None
    experts: str = ""
    coefficient: str = ""


def find_checkpoint(
    store: "ArtifactStore", contest: Contest, name: str, recipe: str | None = None
) -> NamedCheckpoint:
    """Find the one checkpoint that a name stands for, made by `recipe` where that is given.

    Raises MissingArtifactError where it stands for none, or for several.
    """
    of_any = list(dict.fromkeys(_candidates(store, contest, name)))
    found = [each for each in of_any if recipe is None or each.recipe == recipe]
    if len({each.digest for each in found}) == 1:
        return found[0]
    if found:
        shown = ", ".join(sorted({f"{each.label} ({each.digest[:12]})" for each in found})[:6])
        raise MissingArtifactError(f"'{name}' stands for several checkpoints: {shown}; say more")
    known = [e.label for e in _all(store, contest) if recipe is None or e.recipe == recipe]
    of_recipe = f" of recipe '{recipe}'" if recipe is not None else ""
    if of_any:
        makers = sorted({f"recipe '{each.recipe}'" for each in of_any if each.recipe})
        of_recipe += f" (it is of {', '.join(makers)})" if makers else " (no recipe makes it)"
    raise MissingArtifactError(
        f"'{name}' stands for no checkpoint{of_recipe} in artifact store {store.uri}."
        f"{did_you_mean(name, known)} Give a model, RECIPE/champion,"
        " RECIPE/merged_checkpoint[COEFFICIENT|EXPERTS], a row of `ronghe leaderboard`, or the"
        f" first {LEAST} characters of a digest or more"
    )


def recipes_of(store: "ArtifactStore", contest: Contest, digest: str) -> list[str]:
    """Return the recipes that make a checkpoint today, sorted."""
    return sorted({e.recipe for e in _merged(store, contest) if e.digest == digest and e.recipe})


def scores_on(store: "ArtifactStore", checkpoint: str, suite: "Suite") -> SuiteScores | None:
    """Read the scores of a checkpoint on a suite as it is now; None where there are none."""
    artifact = store.find(SCORES, scores_digest(checkpoint, suite.digest))
    return open_scores(artifact) if artifact is not None else None


def _candidates(store: "ArtifactStore", contest: Contest, name: str) -> Iterator[NamedCheckpoint]:
    """Everything that a name may stand for, the cheapest look first."""
    if name in (*contest.bases, *contest.experts):
        models, _ = live_models(store, [name])
        if name in models:
            yield NamedCheckpoint(name, models[name].digest)
        return
    asset, _, partition = name.removesuffix("]").partition("[")
    asset = names.present_name(asset)
    recipe, _, kind = asset.partition("/")
    known = {each.name for each in contest.recipes}
    if recipe in known and kind == names.CHAMPION and not partition:
        ref = names.ref_of(store, names.champion(recipe))
        if ref is None:
            resolve_name(store, name)  # says that there is none, or since when and why
            return
        of_ref = (str(ref.fields.get(each) or "") for each in ("experts", "coefficient"))
        yield NamedCheckpoint(name, ref.digest, recipe, *of_ref)
        return
    if recipe in known and kind in ("", names.MERGED_CHECKPOINT) and partition:
        live = [e for e in _merged(store, contest, [recipe]) if _partition(e) == partition]
        yield from live
        if live:
            return
    on_board = [each for each in _on_board(store) if each.label == name]
    if on_board:
        yield from on_board
        return
    short = len(name) >= LEAST and set(name) <= HEX
    found = [
        each
        for each in _all(store, contest)
        if each.label == name or (short and each.digest.startswith(name))
    ]
    yield from found
    yield from _elsewhere(store, contest, name, {each.digest for each in found}, short)


def _elsewhere(
    store: "ArtifactStore", contest: Contest, name: str, known: Collection[str], short: bool
) -> Iterator[NamedCheckpoint]:
    """What a name stands for beside what competes: contents of the store, steps, `model[NAME]`."""
    if short:
        for kind, digest in store.upkeep.manifests():
            if kind in LOADABLE and digest.startswith(name) and digest not in known:
                yield NamedCheckpoint(digest[:12], digest)
    elif not known:
        try:
            named = resolve_name(store, name)
        except MissingArtifactError:
            return
        if named.asset == MODEL and named.partition != name:
            yield from _candidates(store, contest, str(named.partition))
        elif named.kind in LOADABLE:
            yield NamedCheckpoint(named.name, named.digest)


def _partition(each: NamedCheckpoint) -> str:
    return f"{each.coefficient}|{each.experts}" if each.experts else each.coefficient


def _all(store: "ArtifactStore", contest: Contest) -> Iterator[NamedCheckpoint]:
    models, _ = live_models(store, [*contest.bases, *contest.experts])
    for name in (*contest.bases, *contest.experts):
        if name in models:
            yield NamedCheckpoint(name, models[name].digest)
    yield from _merged(store, contest)


def _merged(
    store: "ArtifactStore", contest: Contest, recipes: Iterable[str] | None = None
) -> Iterator[NamedCheckpoint]:
    for recipe in contest.recipes:
        if recipes is not None and recipe.name not in recipes:
            continue
        table = names.table_of(store, names.merged_checkpoint(recipe.name), recipe.points)
        for partition, (experts, coefficient) in recipe.points.items():
            ref = table.refs.get(partition)
            if ref is not None:
                parts = (recipe.name, experts, coefficient)
                label = " ".join(part for part in parts if part and part != "default")
                yield NamedCheckpoint(label, ref.digest, *parts)


def _on_board(store: "ArtifactStore") -> Iterator[NamedCheckpoint]:
    """The rows of the leaderboard as it is; none where it cannot be read."""
    try:
        board = read_board(store.resolve("leaderboard"))
    except (DamagedArtifactError, MissingArtifactError):
        return
    for rows in board.rows.values():
        for row in rows:
            if row["experts"] and row["digest"] and row["recipe"]:
                experts = "+".join(sorted(row["experts"]))
                parts = (row["recipe"], experts, row["coefficient"] or "")
                yield NamedCheckpoint(row["label"], row["digest"], *parts)
