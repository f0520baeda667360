"""`ronghe push` and `ronghe export`: a model leaves the store, whole, for a hub or a registry."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from assets.work.records.stored_names import Named, names_of, open_named, resolve_name
from assets.work.sharing.cards import CARD
from assets.work.sharing.outgoing import Outgoing, check_outgoing, outgoing_files
from orchestration.catalogs.titles import read_titles
from orchestration.commands.artifacts.path_command import written
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, progress_bar, say
from orchestration.commands.models.output_folder import check_output, check_space, staged
from orchestration.commands.store_tables import SHORT, make_list_console, print_table, size_text
from orchestration.settings import load_settings
from resources.outbound import HubPush, OutgoingFile, write_layout
from resources.store import ArtifactStore

_Told = Callable[[int, int], object]
_Bar = Callable[[str, int], _Told]
"""Begins a bar, by what is done and its bytes; what it returns hears how far that is."""


def run_push(
    name: str, repository: str, dry_run: bool = False, private: bool = False, as_json: bool = False
) -> None:
    """Push a model to the Hub as one commit, or say what would be sent.

    A dry run asks the Hub nothing and merges nothing: of what is virtual it tells the bytes alone.
    Raises WithdrawnError, LicenceConflictError and OutboundError for what may not or cannot leave.
    """
    target, store, console = HubPush(repository), open_store(), make_list_console()
    named = resolve_name(store, name)
    leaving = check_outgoing(store, named, f"{named.name} is not pushed", _accepted(store, named))
    model = open_named(store, named)
    if dry_run and getattr(model, "virtual", False):
        say(console, f"{named.name} is virtual: it is merged before it is pushed")
        return
    with _leaving(store, named, target.repository, as_json or dry_run) as (files, _):
        total = sum(file.size for file in files)
        card = next((file for file in files if file.path == CARD), None)
        if dry_run:
            _print_plan(console, leaving, target, files, card, private, as_json)
            return
        told = f"{leaving.name} ({leaving.digest[:SHORT]})"
        url = target.push(files, f"{told}, by Ronghe", private)
    if as_json:
        print_json({"name": named.name, "digest": named.digest, "bytes": total, "commit": url})
        return
    say(console, f"{told}: {len(files)} files, {size_text(total)} pushed to {url}")


def run_export(name: str, out: Path, as_json: bool = False) -> None:
    """Write a model as an OCI image layout into a new folder, all or nothing.

    Raises WithdrawnError and LicenceConflictError for what may not leave, OutputError where
    something is in the way.
    """
    store = open_store()
    check_output(out)
    named = resolve_name(store, name)
    leaving = check_outgoing(store, named, f"{named.name} is not exported", _accepted(store, named))
    with _leaving(store, named, leaving.tag, as_json) as (files, bar):
        total = sum(file.size for file in files)
        check_space(out, total)
        words = {"org.opencontainers.image.revision": leaving.digest}
        if leaving.licence:
            words["org.opencontainers.image.licenses"] = leaving.licence
        with staged(out) as stage:
            told = bar("exporting", total)
            digest = write_layout(stage, files, leaving.config, leaving.tag, words, told)
    if as_json:
        told = {"name": named.name, "digest": named.digest, "out": str(out), "manifest": digest}
        print_json(told)
        return
    console = PlainConsole()
    say(console, f"{named.name}: {len(files)} files, {size_text(total)} exported to {out}")
    say(console, f"manifest {digest}, tag {leaving.tag}")
    say(console, f"Send it: oras cp --from-oci-layout {out}:{leaving.tag} REGISTRY/NAME:TAG")


@contextmanager
def _leaving(
    store: ArtifactStore, named: Named, called: str, quiet: bool
) -> Iterator[tuple[list[OutgoingFile], _Bar]]:
    """The files of a model, open, and a bar on standard error for whoever writes them."""
    model = written(store, open_named(store, named))
    with progress_bar(PlainConsole(stderr=True)) as bar, model.source() as source:

        def begin(what: str, total: int) -> _Told:
            task = bar.add_task(what, total=total, visible=not quiet)
            return lambda done, _: bar.update(task, completed=done)

        titles = asdict(read_titles(load_settings().catalog))
        yield outgoing_files(store, named, model, source, called, titles), begin


def _print_plan(
    console: PlainConsole,
    leaving: Outgoing,
    target: HubPush,
    files: list[OutgoingFile],
    card: OutgoingFile | None,
    private: bool,
    as_json: bool,
) -> None:
    """Say what would be sent, and where to."""
    text = ""
    if card is not None:
        with card.open() as file:
            text = file.read().decode("utf-8", "replace")
    total = sum(file.size for file in files)
    if as_json:
        listed = [{"path": file.path, "bytes": file.size} for file in files]
        print_json(
            {"name": leaving.name, "digest": leaving.digest, "repository": target.repository,
             "endpoint": target.home, "private": private, "files": listed, "bytes": total,
             "licence": leaving.licence or None, "card": text}
        )  # fmt: skip
        return
    rows = [(file.path, size_text(file.size)) for file in files]
    print_table(console, f"would be sent to {target.repository}", ("file", "size"), rows)
    say(console, f"{len(files)} files, {size_text(total)}, to {target.home}; nothing was sent")
    say(console, f"licence: {leaving.licence or 'not known; say one in the card'}")
    say(console, "The card:" if text else "There is no card (README.md)")
    for line in text.splitlines():
        say(console, f"  {line}")


def _accepted(store: ArtifactStore, named: Named) -> tuple[str, ...]:
    """The conflicts of licences that the recipe behind a name accepts; none without a recipe."""
    from merge_ops.errors import RongheError
    from orchestration.catalogs import load_catalog

    found = [named] if named.asset is not None else names_of(store, named.digest)
    recipes = {each.asset.split("/")[0] for each in found if each.asset and "/" in each.asset}
    if not recipes:
        return ()
    try:
        catalog = load_catalog(load_settings().catalog)
    except (RongheError, OSError) as error:
        told = f"the catalog cannot be read, so no conflict of licences is accepted: {error}"
        say(PlainConsole(stderr=True), marked("warning:", "yellow", told))
        return ()
    steps = [catalog.recipes[name] for name in sorted(recipes) if name in catalog.recipes]
    return tuple(each for recipe in steps for each in recipe.accept_licence_conflicts)
