"""Under which licence a checkpoint may be passed on, and what keeps it back. Knows no Dagster.

A merge is made whatever its inputs' licences are, for that is nobody's business but the team's. To
publish it is another thing: it becomes champion, or is pushed, only where its inputs' licences go
together or the recipe accepts that they do not, by name.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from assets.work.ranking.collecting import RankedRecipe
from assets.work.records.lineage import licences_of, lineage
from merge_ops.errors import LicenceConflictError
from merge_ops.provenance.licences import NO_ADVICE, Conflict, EffectiveLicence, effective

if TYPE_CHECKING:
    from collections.abc import Iterable

    from merge_ops.provenance.ancestry import Ancestry
    from resources.store import ArtifactStore

KEY = "accept_licence_conflicts"


@dataclass(frozen=True)
class Standing:
    """A standing tells where a checkpoint comes from and what licence holds for it."""

    ancestry: "Ancestry"
    licence: EffectiveLicence


def standing_of(store: "ArtifactStore", name_or_digest: str) -> Standing:
    """Return the ancestry and the licence of what a name or a digest stands for.

    Raises MissingArtifactError where it stands for nothing.
    """
    found = lineage(store, name_or_digest)
    return Standing(found, effective(licences_of(found)))


def open_conflicts(
    store: "ArtifactStore", digest: str, accepted: "Iterable[str]"
) -> tuple[Conflict, ...]:
    """Return the conflicts between licences of a checkpoint that are not accepted by name."""
    return standing_of(store, digest).licence.open_conflicts(accepted)


def why_unpublishable(store: "ArtifactStore", digest: str, recipe: RankedRecipe) -> str | None:
    """Say why a recipe's checkpoint may not be published; None where nothing is against it."""
    conflicts = open_conflicts(store, digest, recipe.accepted_conflicts)
    return told(conflicts, recipe.name) if conflicts else None


def refuse_conflicts(store: "ArtifactStore", digest: str, recipe: RankedRecipe, what: str) -> None:
    """Raise LicenceConflictError where a recipe's checkpoint may not be published.

    `what` says what is not done, such as `ties is not pushed`.
    """
    why = why_unpublishable(store, digest, recipe)
    if why is not None:
        raise LicenceConflictError(f"{what}: {why}")


def told(conflicts: "Iterable[Conflict]", recipe: str) -> str:
    """Say which licences do not go together, why, and how to go on."""
    listed = list(conflicts)
    each = "; ".join(f"{conflict.id} ({conflict.because})" for conflict in listed)
    ids = ", ".join(conflict.id for conflict in listed)
    return (
        f"the licences of its inputs do not go together: {each}. Leave one of the inputs out, or"
        f" accept it by name in recipe '{recipe}': `{KEY}: [{ids}]`. {NO_ADVICE}"
    )
