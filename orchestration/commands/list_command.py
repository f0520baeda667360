"""`ronghe ls` and `ronghe show`: what the catalog has in its store, and one of it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from assets.work.records.listing import MADE, Listed, list_names
from assets.work.records.withdrawal import told
from merge_ops.errors import Fault, SettingsError, did_you_mean
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.store_tables import SHORT, make_list_console, size_text

if TYPE_CHECKING:
    from resources.store import ArtifactStore

WORDS = {"checkpoint": "merged_checkpoint", "model": "model", "champion": "champion",
         "step": "step"}  # fmt: skip
"""What people call the kinds of names that can be loaded."""
EVERYTHING = "all"


def run_list(
    uses: str | None = None,
    stale: bool = False,
    licence: str | None = None,
    withdrawn: bool = False,
    kind: str | None = None,
    as_json: bool = False,
) -> None:
    """Print the names of the catalog that have all that is asked for, as a table or as JSON.

    Status 1 when names cannot be read, which are told on standard error. Raises SettingsError for
    a kind that there is not, MissingArtifactError for a name that stands for nothing.
    """
    store = open_store()
    asked = None if kind in (None, EVERYTHING) else WORDS.get(str(kind), str(kind))
    kinds = MADE if kind is None else None if asked is None else (asked,)
    problems: list[str] = []
    listed = list_names(store, kinds, uses, problems)
    if asked is not None and not listed:
        _check_kind(store, str(kind), asked)
    chosen = [
        each
        for each in listed
        if (not stale or each.stale)
        and (not withdrawn or each.withdrawn)
        and (licence is None or licence.lower() in map(str.lower, each.licences))
    ]
    if as_json:
        print_json([each.to_json() for each in chosen])
    else:
        _print_names(store, listed, chosen)
    for problem in problems:
        say(PlainConsole(stderr=True), marked("not listed:", "red", problem))
    if problems:
        raise SystemExit(1)


def _print_names(
    store: "ArtifactStore", listed: Sequence[Listed], chosen: Sequence[Listed]
) -> None:
    """Print a table of names, how many there are, and why some are withdrawn."""
    console = make_list_console()
    if chosen:
        _print(console, chosen)
    by_digest = {each.digest: each for each in chosen}
    total = sum(each.nbytes or 0 for each in by_digest.values() if not each.virtual)
    say(console, f"{len(chosen)} of {len(listed)} names in {store.uri}, {size_text(total)} written")
    if not listed and (hint := _of_others(store)):
        say(console, hint)
    reasons = {str(mark) for each in chosen for mark in each.withdrawn}
    for reason in sorted(reasons):
        say(console, marked("withdrawn:", "red", reason))


def _of_others(store: "ArtifactStore") -> str | None:
    """Whose names a store holds that has none of this catalog: it may be one of these."""
    others = [each for each in store.upkeep.catalogs() if each != store.namespace.name]
    if not others:
        return None
    return (
        f"Those of catalog '{store.namespace.name}' are asked for; the store holds names of"
        f" {', '.join(others)}. RONGHE_CATALOG is the catalog's folder, RONGHE_CATALOG_NAME its"
        " name where the folder is not here"
    )


def run_show(name: str, as_json: bool = False) -> None:
    """Print what a name stands for: content, models, licences, scores, and how to get it.

    Raises MissingArtifactError where it stands for nothing.
    """
    from assets.work.records.showing import shown_of

    store = open_store()
    view = shown_of(store, name)
    if as_json:
        print_json(view.to_json())
        return
    console = make_list_console()
    say(console, f"{view.name}  {view.digest}", "bold")
    for key, value in view.lines():
        say(console, f"  {key:<11}{value}")
    for warning in view.stale:
        say(console, marked("stale:", "yellow", warning))
    if view.withdrawn:
        say(console, marked("withdrawn:", "red", told(view.withdrawn)))
    say(console, "Load it:    ronghe path " + quoted(name))
    say(console, "As a folder: ronghe pull " + quoted(name) + " OUT")


def quoted(name: str) -> str:
    """Return a name as a shell takes it."""
    import shlex

    return shlex.quote(name)


def _check_kind(store: "ArtifactStore", given: str, asked: str) -> None:
    kinds = {each.kind for each in list_names(store, None)}
    if asked not in kinds:
        words = sorted({*WORDS, *kinds.difference(WORDS.values()), EVERYTHING})
        problem = f"is {given!r}.{did_you_mean(given, words)} Kinds here: {', '.join(words)}"
        raise SettingsError("ronghe ls", [Fault("--kind", problem)])


def _print(console: PlainConsole, chosen: Sequence[Listed]) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("name", overflow="fold", min_width=16)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("licence", overflow="fold", min_width=7)
    table.add_column("digest", no_wrap=True)
    table.add_column("", overflow="fold")
    for each in chosen:
        state = Text()
        if each.withdrawn:
            state.append("withdrawn ", "red")
        if each.stale:
            state.append("stale ", "yellow")
        if each.virtual:
            state.append("virtual ", "dim")
        size = "–" if each.nbytes is None else size_text(each.nbytes)
        licences = ", ".join(each.licences) or "–"
        table.add_row(Text(each.name), size, Text(licences), each.digest[:SHORT], state)
    console.print(table)
