"""`ronghe restore`: a model of the artifact store, packed or not, as a folder."""

from pathlib import Path

from assets.work.packed_models import MODEL, stored_model
from merge_ops.checkpoints import FolderSink
from merge_ops.errors import did_you_mean
from merge_ops.jobs.restoring import copy_files
from orchestration.commands.console import PlainConsole, progress_bar, say
from orchestration.commands.output_folder import check_output, staged
from orchestration.settings import load_settings
from resources.errors import DamagedArtifactError, MissingArtifactError
from resources.store import ArtifactStore


def run_restore(name: str, out: Path) -> None:
    """Write the model's files into `out`, all of them or nothing, each compared with its hash.

    Raises MissingArtifactError for a name that stands for nothing, OutputError where something is
    in the way, PackedModelError or DamagedArtifactError where the store is damaged.
    """
    store = ArtifactStore.open(load_settings().store)
    check_output(out)
    model = stored_model(store, name)
    if model is None:
        known = [str(each) for each in store.refs(MODEL)]
        raise MissingArtifactError(
            f"model '{name}' is not in artifact store {store.uri}.{did_you_mean(name, known)}"
            f" Known: {', '.join(known) or 'none'}; `ronghe refresh` pulls what the catalog lists"
        )
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with staged(out) as stage, bar, model.source() as source:
        task = bar.add_task("restoring", total=model.nbytes)
        hashes = copy_files(
            source, FolderSink(stage), progress=lambda done, _: bar.update(task, completed=done)
        )
        wrong = [path for path, file in model.files.items() if hashes[path] != file.blake3]
        if wrong:
            raise DamagedArtifactError(
                f"{model.uri}: {wrong[0]!r} has other bytes than were pulled; nothing was written."
                " Remove the artifact from the store and pull the model again"
            )
    say(PlainConsole(), f"{name}: {model.nbytes} bytes restored to {out}")
