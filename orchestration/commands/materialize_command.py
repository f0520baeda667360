"""`ronghe materialize`: the files of a checkpoint that was planned and scored, and not written."""

from assets.work.merging import CHECKPOINT
from assets.work.names import present_name, resolve
from assets.work.virtual_checkpoints import bytes_of, materialize
from merge_ops.errors import Fault, SettingsError
from merge_ops.stream import StreamSettings
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, progress_bar
from orchestration.commands.store_tables import LEAST, size_text
from orchestration.settings import load_settings
from resources.store import Artifact, ArtifactStore


def run_materialize(name: str) -> None:
    """Write a virtual checkpoint into the store; one that is written already is only named.

    `name` is what a recipe made, `ties/champion` or `ties/merged_checkpoint[lambda=0.5|e1+e2]`, or
    a digest, or its first characters. Raises SettingsError for a name that stands for nothing, and
    what a merge raises.
    """
    settings, store = load_settings(), open_store()
    artifact, console = find_checkpoint(store, name), PlainConsole()
    if not artifact.virtual:
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
    """Find a checkpoint by what a recipe is called, or by its digest. Raises SettingsError."""
    asset, _, partition = name.removesuffix("]").partition("[")
    if "/" in asset:
        found = resolve(store, present_name(asset), partition or None)
        if found is not None and found.kind == CHECKPOINT:
            return found
        problem = (
            f"is {name!r}, which stands for no checkpoint in {store.uri}; give RECIPE/champion,"
            " RECIPE/merged_checkpoint[PARTITION] or a digest (`ronghe refs` shows them)"
        )
        raise SettingsError("ronghe materialize", [Fault("NAME", problem)])
    if len(name) < LEAST:
        problem = f"is {name!r}; give at least {LEAST} characters of a digest, or a name with a /"
        raise SettingsError("ronghe materialize", [Fault("NAME", problem)])
    matches = [each for each in store.digests(CHECKPOINT) if each.startswith(name)]
    if len(matches) == 1:
        return store.get(CHECKPOINT, matches[0])
    said = f"several checkpoints of {store.uri}" if matches else f"no checkpoint of {store.uri}"
    problem = f"is {name!r}, which begins the digest of {said}; `ronghe refs` shows them"
    raise SettingsError("ronghe materialize", [Fault("NAME", problem)])
