"""Models that a command looks at: folders, names of the Hub, and names of the catalog's store."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merge_ops.checkpoints import ByteSource, Checkpoint, open_checkpoint
from merge_ops.errors import MissingModelError
from orchestration.commands.models.local_models import (
    Download,
    files_of,
    folders_of,
    open_models,
)
from orchestration.commands.models.model_references import is_there, local_path, resolve
from resources.errors import MissingArtifactError

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel


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
            opened[reference] = open_checkpoint(reference, stored.source(), stored.digest)
            continue
        try:
            opened |= open_models(
                command, [reference], download=Download.NOW, follow_links=follow_links
            )
        except MissingModelError as error:
            raise MissingModelError(f"{error}{told}") from None
    return opened


def files_named(command: str, reference: str) -> ByteSource:
    """Return the files of a model that is no folder here: the store's by name, else the Hub's.

    Of a far one the headers are read over the network, and nothing is downloaded. Raises
    MissingModelError where it is nowhere.
    """
    stored, told = (None, "") if "://" in reference else _stored(command, reference)
    if stored is not None:
        return stored.source()
    try:
        return files_of(reference, resolve(reference), Download.NEVER)
    except MissingModelError as error:
        raise MissingModelError(f"{error}{told}") from None


def _stored(command: str, name: str) -> "tuple[StoredModel | None, str]":
    """A checkpoint of the catalog's store by its name, or None and what the store says."""
    from orchestration.settings import load_settings

    settings = load_settings()
    if not (settings.catalog / "models.yaml").is_file():
        return None, ""
    from assets.work.merging.virtual_checkpoints import stored_by_digest
    from assets.work.ranking.named_checkpoints import find_checkpoint
    from orchestration.commands.catalog_store import open_store
    from orchestration.commands.evidence.champion_commands import contest_of

    store = open_store(settings, may_be_new=True)
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
    return artifact, ""
