"""Weights of candidates that nobody needs written are removed; manifests and scores stay.

A pruned checkpoint is a virtual one (virtual_checkpoints): it is found, compared and promoted as
before, and written again from its plan where its bytes are asked for. So only what the catalog can
plan again to the same digest is pruned. Knows no Dagster.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.manifests import COST, output_fields
from assets.work.merging.merging import CHECKPOINT, MergeJob, open_set
from assets.work.ranking.collecting import Contest
from assets.work.ranking.kept_rows import read_board
from merge_ops.errors import Fault, RongheError, SettingsError
from resources.errors import DamagedArtifactError, ResourceError

if TYPE_CHECKING:
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore

CHAMPIONS, TOP = "champions", "top:"


@dataclass(frozen=True)
class Keeping:
    """What stays written: champions always, and of each suite's leaderboard the first `top`."""

    top: int = 0


@dataclass(frozen=True)
class Pruned:
    """One checkpoint that was pruned, or would be: its partition, digest and bytes."""

    asset: str
    partition: str
    digest: str
    nbytes: int


@dataclass(frozen=True)
class PruneReport:
    """What was pruned, or would be; how many stay because they are wanted, and why others stay."""

    pruned: tuple[Pruned, ...]
    kept: int
    held: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes that are free then."""
        return sum({each.digest: each.nbytes for each in self.pruned}.values())


def parse_keep(text: str) -> Keeping:
    """Read `champions` or `champions,top:3`. Raises SettingsError for anything else.

    Champions have to be named, so that nobody takes them for pruned, and are always kept.
    """
    parts = [part.strip() for part in text.split(",")]
    top = [part.removeprefix(TOP) for part in parts if part.startswith(TOP)]
    others = [part for part in parts if not part.startswith(TOP)]
    good = others == [CHAMPIONS] and len(top) <= 1 and all(each.isdecimal() for each in top)
    if not good:
        problem = f"is {text!r}; it must be 'champions', or 'champions,top:N' with a whole number N"
        raise SettingsError("ronghe prune", [Fault("--keep", problem)])
    return Keeping(int(top[0]) if top else 0)


def prune(
    store: "ArtifactStore",
    contest: Contest,
    jobs: Iterable[MergeJob],
    keeping: Keeping,
    settings: "StreamSettings",
    dry_run: bool = False,
) -> PruneReport:
    """Make the candidates of some merge jobs virtual, but those that are kept.

    `jobs` have an asset and the points of one expert set each. Of a job whose models or earlier
    steps are not there as they were, the checkpoints stay, and the report's `held` says why. What
    another name or another catalog points to stays too. Raises DamagedArtifactError where a name in
    the store cannot be read.
    """
    wanted = _wanted(store, contest, keeping)
    pruned: list[Pruned] = []
    held: dict[str, str] = {}
    kept = 0
    for job in jobs:
        asset = str(job.asset)
        refs = names.table_of(store, asset, [str(each) for each in job.points.values()]).refs
        written: dict[str, tuple[str, Artifact]] = {}
        for partition in map(str, job.points.values()):
            ref = refs.get(partition)
            artifact = store.find(CHECKPOINT, ref.digest) if ref is not None else None
            if artifact is not None and not artifact.virtual:
                written[artifact.digest] = (partition, artifact)
        free = {digest: each for digest, each in written.items() if digest not in wanted}
        kept += len(written) - len(free)
        again = _planned(store, job, settings, free, held)
        for digest, (partition, artifact) in free.items():
            if digest in again:
                nbytes = artifact.nbytes
                if not dry_run:
                    spent = {COST: m[COST]} if COST in (m := artifact.manifest) else {}
                    nbytes = store.upkeep.unwrite(CHECKPOINT, digest, again[digest] | spent)
                pruned.append(Pruned(asset, partition, digest, nbytes))
            else:
                why = "its models, its recipe or this release would make another one now"
                held.setdefault(f"{asset} [{partition}]", why)
    return PruneReport(tuple(pruned), kept, held)


def _planned(
    store: "ArtifactStore",
    job: MergeJob,
    settings: "StreamSettings",
    free: Mapping[str, tuple[str, "Artifact"]],
    held: dict[str, str],
) -> dict[str, dict[str, Any]]:
    """Manifest fields by digest of what a job plans today; of one that cannot plan, why."""
    from merge_ops.plans import plan_merge
    from merge_ops.stream import arithmetic_kind

    if not free:
        return {}
    lacking = _missing_step(store, job)
    try:
        if lacking is not None:
            raise ResourceError(f"the earlier step {lacking} is not in the store")
        opened = open_set(store, job, settings)
        arithmetic = arithmetic_kind(settings.device)
        plan = plan_merge(opened.recipe, opened.models, arithmetic=arithmetic)
        return dict(output_fields(plan, opened.models).values())
    except (RongheError, ResourceError) as error:
        for partition, _ in free.values():
            held[f"{job.asset} [{partition}]"] = f"{type(error).__name__}: {error}"
        return {}


def _missing_step(store: "ArtifactStore", job: MergeJob) -> str | None:
    """An earlier step that would have to be merged first: pruning makes nothing."""
    recipe = str(job.asset).split("/")[0]
    for step in job.steps.earlier:
        partition = job.expert_set if job.steps.takes_experts(step) else None
        if names.ref_of(store, names.step(recipe, step.name), partition or None) is None:
            return step.name
    return None


def _wanted(store: "ArtifactStore", contest: Contest, keeping: Keeping) -> set[str]:
    """Digests that stay written: champions, the first of leaderboards, and what others point to."""
    merged = {names.merged_checkpoint(recipe.name) for recipe in contest.recipes}
    own, refs = store.namespace.name, store.upkeep.all_refs()
    faults = [each.fault for each in refs if each.fault is not None]
    if faults:
        raise DamagedArtifactError(
            f"nothing is pruned while a name in {store.uri} cannot be read, since it may be a"
            f" champion's: {faults[0]}"
        )
    wanted = {
        each.ref.digest
        for each in refs
        if each.ref is not None
        and not (each.catalog == own and names.present_name(each.ref.asset) in merged)
    }
    if keeping.top:
        board = read_board(store.resolve("leaderboard"))
        wanted |= {digest for rows in board.rows.values() for digest in _first(rows, keeping.top)}
    return wanted


def _first(rows: Sequence[Mapping[str, Any]], top: int) -> Iterator[str]:
    merged = [row for row in rows if row["experts"] and row["digest"]]
    yield from (str(row["digest"]) for row in merged[:top])
