"""`ronghe path`: a local folder of a model, for `from_pretrained` and `vllm serve`."""

from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.records.stored_names import Named, open_named, resolve_name
from assets.work.records.withdrawal import rests_on, told
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, progress_bar, say
from resources.store import Artifact, ArtifactStore

if TYPE_CHECKING:
    from assets.work.upstream.packed_models import StoredModel


def run_path(name: str, as_json: bool = False) -> None:
    """Print the local folder of what a name stands for, and nothing else, on standard output.

    In a store on this machine it is the store's own folder: read it, never write it. From S3, and
    for a packed model, the files are brought once into the cache of pulled artifacts, and compared
    with their hashes each time. A virtual checkpoint is written into the store first.
    Raises MissingArtifactError, DamagedArtifactError, and what a merge raises.
    """
    import typer

    store = open_store()
    named = resolve_name(store, name)
    warn_of_withdrawal(store, named)
    folder = folder_of(store, written(store, open_named(store, named)))
    if as_json:
        print_json({"name": named.name, "digest": named.digest, "path": str(folder)})
    else:
        typer.echo(str(folder))


def folder_of(store: ArtifactStore, model: "StoredModel") -> Path:
    """Return the local folder of a model, brought there with a bar on standard error."""
    bar = progress_bar(PlainConsole(stderr=True))
    with bar:
        task = bar.add_task("bringing it here", total=model.nbytes)
        return model.folder(
            progress=lambda done, total: bar.update(task, completed=done, total=total)
        )


def written(store: ArtifactStore, model: "StoredModel") -> "StoredModel":
    """Return a model whose files are there: a virtual checkpoint is written into the store."""
    if not isinstance(model, Artifact) or not model.virtual:
        return model
    from merge_ops.stream import StreamSettings
    from orchestration.commands.artifacts.materialize_command import materialize_with_bar
    from orchestration.settings import load_settings

    how = load_settings()
    return materialize_with_bar(store, model, StreamSettings(how.threads, how.device, how.memory))


def warn_of_withdrawal(store: ArtifactStore, named: Named) -> None:
    """Say on standard error what a content rests on that is withdrawn; it is given all the same."""
    resting = rests_on(store, [named.digest])
    if resting:
        console = PlainConsole(stderr=True)
        text = f"{named.name} rests on what was withdrawn: {told(resting[named.digest])}"
        say(console, marked("warning:", "yellow", text))
