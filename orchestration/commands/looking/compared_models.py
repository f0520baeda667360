"""Models that a command looks at: folders, names of the Hub, and names of the catalog's store."""

from collections.abc import Sequence

from merge_ops.checkpoints import Checkpoint, open_checkpoint
from merge_ops.errors import MissingModelError
from orchestration.commands.models.local_models import Download, folders_of, open_models
from orchestration.commands.models.model_references import is_there, local_path
from resources.errors import MissingArtifactError


def open_compared(
    command: str, references: Sequence[str], follow_links: bool = False
) -> dict[str, Checkpoint]:
    """Open each reference, headers alone: what is here, else what the store has, else the Hub's.

    A name of the store is one that `ronghe compare` takes. Raises MissingModelError where a
    reference is nowhere, with where was looked, and what opening a model raises.
    """
    opened: dict[str, Checkpoint] = {}
    for reference in dict.fromkeys(references):
        here = is_there(local_path(folders_of(reference)[0]))
        stored, told = (None, "") if here or "://" in reference else _stored(command, reference)
        if stored is not None:
            opened[reference] = stored
            continue
        try:
            opened |= open_models(
                command, [reference], download=Download.NOW, follow_links=follow_links
            )
        except MissingModelError as error:
            raise MissingModelError(f"{error}{told}") from None
    return opened


def _stored(command: str, name: str) -> tuple[Checkpoint | None, str]:
    """A checkpoint of the catalog's store by its name, or None and what the store says."""
    from orchestration.settings import load_settings

    settings = load_settings()
    if not (settings.catalog / "models.yaml").is_file():
        return None, ""
    from assets.work.merging.virtual_checkpoints import stored_by_digest
    from assets.work.ranking.named_checkpoints import find_checkpoint
    from orchestration.commands.catalog_store import open_store
    from orchestration.commands.evidence.champion_commands import contest_of

    store = open_store(settings)
    try:
        found = find_checkpoint(store, contest_of(settings), name)
        artifact = stored_by_digest(store, found.digest)
    except MissingArtifactError as error:
        return None, f"; {error}"
    if getattr(artifact, "virtual", False):
        raise MissingModelError(
            f"{command}: '{name}' is a checkpoint that was planned and not written; `ronghe"
            f" materialize {found.digest[:12]}` writes it"
        )
    return open_checkpoint(name, artifact.source(), artifact.digest), ""
