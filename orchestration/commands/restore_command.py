"""`ronghe restore`: a model of the artifact store, or what a recipe made, as a folder."""

from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.merging import CHECKPOINT
from assets.work.names import CHAMPION, merged_checkpoint, present_name, ref_of, refs_of
from assets.work.packed_models import MODEL, stored_model
from merge_ops.checkpoints import FolderSink
from merge_ops.errors import did_you_mean
from merge_ops.jobs.restoring import copy_files
from merge_ops.provenance import markdown
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, progress_bar
from orchestration.commands.output_folder import check_output, check_space, staged
from resources.errors import ArtifactReadError, DamagedArtifactError, MissingArtifactError
from resources.store import Artifact, ArtifactStore

if TYPE_CHECKING:
    from assets.work.packed_models import StoredModel
    from resources.store import Ref


def run_restore(name: str, out: Path) -> None:
    """Write the files of a model or a checkpoint into `out`, all or nothing, each compared.

    `name` is a model of the catalog, or what a recipe made: `ties/champion`, or
    `ties/merged_checkpoint[lambda=0.5|e1+e2]`; one that is virtual is written into the store first,
    so that its files are compared too. The card of a checkpoint says what the catalog calls
    the models in it. Raises MissingArtifactError for a name that stands for nothing, OutputError
    where something is in the way, PackedModelError or DamagedArtifactError where the store is
    damaged.
    """
    store = open_store()
    check_output(out)
    ref, model = _found(store, name)
    if isinstance(model, Artifact) and model.virtual:
        model = _written(store, model)
    check_space(out, model.nbytes)
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with staged(out) as stage, bar, model.source() as source:
        task = bar.add_task("restoring", total=model.nbytes)
        try:
            hashes = copy_files(
                source, FolderSink(stage), progress=lambda done, _: bar.update(task, completed=done)
            )
        except ArtifactReadError as error:  # an OSError, but not one of the output
            raise DamagedArtifactError(f"{error}; nothing was written") from error
        wrong = [path for path, file in model.files.items() if hashes[path] != file.blake3]
        if wrong:
            raise DamagedArtifactError(
                f"{model.uri}: {wrong[0]!r} has other bytes than were pulled; nothing was written."
                " `ronghe verify --repair` sets it aside, and the next `ronghe refresh` makes it"
                " again"
            )
        if ref is not None and ref.kind == CHECKPOINT:
            _add_names(stage / "README.md", ref)
    PlainConsole().print(f"{name}: {model.nbytes} bytes restored to {out}", soft_wrap=True)


def _written(store: ArtifactStore, virtual: Artifact) -> Artifact:
    from merge_ops.stream import StreamSettings
    from orchestration.commands.materialize_command import materialize_with_bar
    from orchestration.settings import load_settings

    how = load_settings()
    return materialize_with_bar(store, virtual, StreamSettings(how.threads, how.device, how.memory))


def _found(store: ArtifactStore, name: str) -> "tuple[Ref | None, StoredModel]":
    """What a name stands for: a model, or what a recipe made for a partition or for none."""
    model = stored_model(store, name)
    if model is not None:
        return store.ref(MODEL, name), model
    asset, _, partition = name.removesuffix("]").partition("[")
    ref = ref_of(store, present_name(asset), partition or None) if "/" in asset else None
    if ref is not None:
        return _with_names(store, ref), store.get(ref.kind, ref.digest)
    known = [str(each) for each in store.refs(MODEL)]
    raise MissingArtifactError(
        f"model '{name}' is not in artifact store {store.uri}.{did_you_mean(name, known)}"
        f" Known: {', '.join(known) or 'none'}; `ronghe refresh` pulls what the catalog lists, and"
        " RECIPE/champion or RECIPE/merged_checkpoint[PARTITION] name what recipes made"
    )


def _with_names(store: ArtifactStore, ref: "Ref") -> "Ref":
    """A champion's ref, or where it says no names that of the checkpoint it was chosen from."""
    if "models" in ref.fields or not ref.asset.endswith(f"/{CHAMPION}"):
        return ref
    merged = refs_of(store, merged_checkpoint(ref.asset.split("/")[0]))
    return next((each for each in merged.values() if each.digest == ref.digest), ref)


def _add_names(card: Path, ref: "Ref") -> None:
    """Say in a restored card what the catalog calls the models that went in, and their licences."""
    models, licences = ref.fields.get("models"), ref.fields.get("licences")
    if not isinstance(models, dict) or not card.is_file():
        return
    stated = licences if isinstance(licences, dict) else {}
    lines = [f"\nIn the catalog this is `{ref.asset}`, and the models are called:\n"]
    lines += ["| model | licence | digest |", "|---|---|---|"]
    lines += [
        f"| {markdown.in_markdown(name)} | {markdown.in_markdown(stated.get(name) or 'not stated')}"
        f" | {markdown.as_code(digest)} |"
        for name, digest in models.items()
    ]
    with card.open("a", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
