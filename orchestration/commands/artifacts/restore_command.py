"""`ronghe restore` and `pull`: what the artifact store has, as a folder."""

from dataclasses import asdict
from pathlib import Path

from assets.work.records.stored_names import open_named, resolve_name
from assets.work.sharing.cards import CARD, card_leaving
from assets.work.sharing.outgoing import said_by
from merge_ops.checkpoints import FolderSink
from merge_ops.jobs.restoring import copy_files
from orchestration.catalogs.titles import read_titles
from orchestration.commands.artifacts.path_command import warn_of_withdrawal, written
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.models.output_folder import check_output, check_space, staged
from orchestration.settings import load_settings
from resources.errors import ArtifactReadError, DamagedArtifactError


def run_restore(name: str, out: Path, as_json: bool = False) -> None:
    """Write the files of a model or a checkpoint into `out`, all or nothing, each compared.

    `name` is any name of assets.work.records.stored_names; what is virtual is written into the
    store first, so that its files are compared too. The card of a checkpoint says what the catalog
    calls the models in it. Raises MissingArtifactError for a name that stands for nothing,
    OutputError where something is in the way, PackedModelError or DamagedArtifactError where the
    store is damaged.
    """
    store = open_store()
    check_output(out)
    named = resolve_name(store, name)
    warn_of_withdrawal(store, named)
    ref, model = said_by(store, named), written(store, open_named(store, named))
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
        own = stage / CARD
        before = own.read_bytes() if own.is_file() else b""
        titles = asdict(read_titles(load_settings().catalog))
        card = card_leaving(store, named, ref, out.name, before, titles)
        if card is not None:
            own.write_bytes(card)
    if as_json:
        told = {"name": named.name, "digest": named.digest, "bytes": model.nbytes, "out": str(out)}
        print_json(told)
        return
    PlainConsole().print(f"{name}: {model.nbytes} bytes restored to {out}", soft_wrap=True)
