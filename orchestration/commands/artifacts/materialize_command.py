"""`ronghe materialize`: the files of a checkpoint that was planned and scored, and not written."""

from assets.work.merging.merging import CHECKPOINT
from assets.work.merging.virtual_checkpoints import bytes_of, materialize
from assets.work.records.stored_names import resolve_name
from merge_ops.errors import Fault, SettingsError
from merge_ops.stream import StreamSettings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.store_tables import size_text
from orchestration.settings import load_settings
from resources.store import Artifact, ArtifactStore


def run_materialize(name: str, as_json: bool = False) -> None:
    """Write a virtual checkpoint into the store; one that is written already is only named.

    `name` is any name of assets.work.records.stored_names. Raises MissingArtifactError for one that
    stands for nothing, SettingsError for a model, and what a merge raises.
    """
    settings, store = load_settings(), open_store()
    artifact, console = find_checkpoint(store, name), PlainConsole()
    made = artifact.virtual
    if as_json:
        stream = StreamSettings(settings.threads, settings.device, settings.memory)
        artifact = materialize_with_bar(store, artifact, stream) if made else artifact
        told = {"name": name, "digest": artifact.digest, "bytes": artifact.nbytes}
        print_json({**told, "written_now": made, "uri": artifact.uri})
        return
    if not made:
        size = size_text(artifact.nbytes)
        console.print(f"{name}: is written already, {size} at {artifact.uri}", soft_wrap=True)
        return
    written = materialize_with_bar(
        store, artifact, StreamSettings(settings.threads, settings.device, settings.memory)
    )
    console.print(
        f"{name}: {size_text(written.nbytes)} written, checkpoint {written.digest}; `ronghe restore"
        " NAME --out FOLDER` gives a folder",
        soft_wrap=True,
    )


def materialize_with_bar(
    store: ArtifactStore, artifact: Artifact, settings: StreamSettings
) -> Artifact:
    """Write a virtual checkpoint while a bar on standard error shows how far it is."""
    bar = progress_bar(PlainConsole(stderr=True))
    with bar:
        task = bar.add_task("materializing", total=bytes_of(artifact))
        return materialize(
            store,
            artifact,
            settings,
            lambda done, total: bar.update(task, completed=done, total=total),
        )


def find_checkpoint(store: ArtifactStore, name: str) -> Artifact:
    """Find a checkpoint by any name. Raises MissingArtifactError, and SettingsError for a model."""
    named = resolve_name(store, name)
    if named.kind != CHECKPOINT:
        problem = (
            f"is {name!r}, a {named.kind} in {store.uri} and no checkpoint; give RECIPE/champion,"
            " RECIPE[PARTITION] or a digest (`ronghe ls` shows them)"
        )
        raise SettingsError("ronghe materialize", [Fault("NAME", problem)])
    return store.get(CHECKPOINT, named.digest)
