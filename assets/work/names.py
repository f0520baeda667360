"""What assets are called, in Dagster and in the store. Knows no Dagster.

    model  task_vector  model_scores/<suite>  leaderboard
    <recipe>/merge_plan  <recipe>/merged_checkpoint  <recipe>/step/<name>  <recipe>/scores
    <recipe>/champion  <recipe>/search
    <recipe>/emr_masks          <recipe>/step/<name>/emr_masks
    run_step  run_scores  <recipe>/window  <recipe>/step/<name>/window  <recipe>/course

A name ends in what the asset is, because Dagster's graph shows the last part alone. Until commit
42f52bf the kind came first (`merged_checkpoint/<recipe>`). What was named then is still read: a
name of today that points nowhere stands for what its earlier name points to.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resources.store import Artifact, ArtifactStore, Ref

MERGED_CHECKPOINT, STEP, SCORES, CHAMPION = "merged_checkpoint", "step", "scores", "champion"
EMR_MASKS, MERGE_PLAN = "emr_masks", "merge_plan"
CHECKED_SUITE, IMPORTED_SCORES, SEARCH = "checked_suite", "imported_scores", "search"
RUN_STEP, RUN_SCORES, WINDOW, COURSE = "run_step", "run_scores", "window", "course"
EARLIER = {
    "merged_checkpoint": MERGED_CHECKPOINT,
    "benchmark_scores": SCORES,
    "champion": CHAMPION,
    "emr_masks": EMR_MASKS,
}
"""First part of an earlier name (`<first>/<recipe>`), and today's last part."""
EARLIER_STEP = "merged_stage"
"""First part of a step's earlier name: `merged_stage/<recipe>/<name>`."""
FIXED = (
    "upstream_model", "model", "task_vector", "merge_plan", "model_scores", "whole_model",
    "leaderboard", RUN_STEP, RUN_SCORES, "upstream_run_step", "gates", "statistics", "catalog_site",
    "trust_report", CHECKED_SUITE, IMPORTED_SCORES, "leaderboard_evidence",
)  # fmt: skip
"""First parts that belong to no recipe, those of assets that are planned among them."""


def reserved_names() -> frozenset[str]:
    """Return the first parts of names, of today and earlier, that no recipe may have."""
    return frozenset((*FIXED, *EARLIER, EARLIER_STEP))


def merged_checkpoint(recipe: str) -> str:
    """Name what a recipe makes."""
    return f"{recipe}/{MERGED_CHECKPOINT}"


def step(recipe: str, name: str) -> str:
    """Name what an earlier step of a recipe makes."""
    return f"{recipe}/{STEP}/{name}"


def scores(recipe: str) -> str:
    """Name the scores of what a recipe makes."""
    return f"{recipe}/{SCORES}"


def champion(recipe: str) -> str:
    """Name a recipe's promoted checkpoint."""
    return f"{recipe}/{CHAMPION}"


def search(recipe: str) -> str:
    """Name the studies of a recipe whose coefficients are searched for, one an expert set."""
    return f"{recipe}/{SEARCH}"


def merge_plan(recipe: str) -> str:
    """Name the plans of the expert sets that one recipe merges.

    In the store a plan has the name `merge_plan` alone: it is about a set, whichever recipes merge
    it, and is made once.
    """
    return f"{recipe}/{MERGE_PLAN}"


def window(merged: str) -> str:
    """Name the windows of `merged`, the name of a merged checkpoint or of a step."""
    return f"{merged.removesuffix(f'/{MERGED_CHECKPOINT}')}/{WINDOW}"


def course(recipe: str) -> str:
    """Name the scores of a recipe's windows beside those of the steps, over the steps."""
    return f"{recipe}/{COURSE}"


def emr_masks(merged: str) -> str:
    """Name the masks that belong to `merged`, the name of a merged checkpoint or of a step."""
    return f"{merged.removesuffix(f'/{MERGED_CHECKPOINT}')}/{EMR_MASKS}"


def kind_of(name: str) -> str:
    """Return what an asset is, whichever recipe has it: `scores` of `ties/scores`."""
    first, *rest = name.split("/")
    return rest[0] if rest and first not in FIXED else first


def earlier_name(name: str) -> str | None:
    """Return what an asset was called until commit 42f52bf; None where that is the same."""
    first = {kind: family for family, kind in EARLIER.items()}
    match name.split("/"):
        case [recipe, "step", made]:
            return f"{EARLIER_STEP}/{recipe}/{made}"
        case [recipe, "step", made, "emr_masks"]:
            return f"emr_masks/{recipe}/{made}"
        case [recipe, kind] if kind in first and recipe not in FIXED:
            return f"{first[kind]}/{recipe}"
        case _:
            return None


def present_name(name: str) -> str:
    """Return what an asset is called today, given that or its earlier name."""
    match name.split("/"):
        case ["merged_stage", recipe, made]:
            return step(recipe, made)
        case ["emr_masks", recipe, made]:
            return emr_masks(step(recipe, made))
        case [family, recipe] if family in EARLIER:
            return f"{recipe}/{EARLIER[family]}"
        case _:
            return name


def ref_of(store: "ArtifactStore", name: str, partition: str | None = None) -> "Ref | None":
    """Read what a name of today, or else its earlier name, points to; None where neither does."""
    ref = history_of(store, name, partition)
    return None if ref is not None and ref.vacant else ref


def history_of(store: "ArtifactStore", name: str, partition: str | None = None) -> "Ref | None":
    """Read a name as `ref_of` does; also one that is vacant: it points to nothing any more."""
    ref, earlier = store.ref(name, partition), earlier_name(name)
    return store.ref(earlier, partition) if ref is None and earlier is not None else ref


def resolve(store: "ArtifactStore", name: str, partition: str | None = None) -> "Artifact | None":
    """Open the artifact that a name stands for; None where it points to none.

    Raises MissingArtifactError where the store has lost what it points to.
    """
    ref = ref_of(store, name, partition)
    return store.get(ref.kind, ref.digest) if ref is not None else None


def refs_of(
    store: "ArtifactStore", name: str, wanted: Iterable[str | None] | None = None
) -> dict[str | None, "Ref"]:
    """Read the refs of a name that can be read, by partition, each with its whole history."""
    return table_of(store, name, wanted).refs


@dataclass(frozen=True)
class Table:
    """The refs of a name by partition, and of those that cannot be read what is wrong."""

    refs: dict[str | None, "Ref"]
    damaged: Mapping[str, str]


def table_of(
    store: "ArtifactStore", name: str, wanted: Iterable[str | None] | None = None
) -> Table:
    """Read the refs of a name by partition, each with its whole history; one that is damaged is one
    fault, named `<name> [<partition>]`.

    With the partitions that are `wanted`, the earlier name is read only where one of them has no
    ref of today, so that a store pays for its past until it has been refreshed once; histories
    then begin with today's name.
    """
    wanted = None if wanted is None else list(wanted)
    (refs, damaged), earlier = _read(store, name), earlier_name(name)
    if earlier is None or (wanted is not None and set(wanted) <= refs.keys()):
        return Table(refs, damaged)
    old, damaged_too = _read(store, earlier)
    for partition, before in old.items():
        if f"{name} [{partition}]" in damaged:
            continue  # what it points to now is not known, and an old answer may be a wrong one
        now = refs.get(partition)
        history = before.history + (now.history if now is not None else ())
        refs[partition] = dataclasses.replace(before, asset=name, history=history)
    return Table(refs, {**damaged_too, **damaged})


def _read(store: "ArtifactStore", name: str) -> tuple[dict[str | None, "Ref"], dict[str, str]]:
    """The refs of one name, and what is wrong with the damaged ones."""
    table = store.ref_table(name)
    damaged = {f"{name} [{key}]": str(error) for key, error in table.damaged.items()}
    return {key: ref for key, ref in table.refs.items() if not ref.vacant}, damaged
