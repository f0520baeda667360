"""`ronghe inspect`: what a folder is, in words or as JSON, without Dagster, torch or a store."""

from dataclasses import replace
from os.path import isfile as is_file
from typing import Any

from rich.table import Table
from rich.text import Text

from merge_ops.checkpoints import ByteSource, FolderSource
from merge_ops.checkpoints.folders.folder_facts import further_faults, model_facts
from merge_ops.checkpoints.folders.folder_verdict import (
    KINDS,
    FolderReading,
    FolderVerdict,
    read_folder,
)
from merge_ops.errors import RongheError, shown
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.models.model_references import is_there, local_path

_SHOWN = 8


def show_model(reference: str, as_json: bool, follow_links: bool = False) -> None:
    """Print what a folder, a file or a named model is. Status 1 where it cannot be merged."""
    source = _files(reference, follow_links)
    reading = read_folder(source)
    verdict = _with_adapter_faults(source, reading.verdict)
    further = () if verdict.kind == "adapter" else further_faults(source, reading)
    verdict = replace(verdict, faults=(*verdict.faults, *further))
    facts = model_facts(source, reading)
    if as_json:
        document = {**verdict.to_json(), "model": facts.to_json() if facts else None}
        print_json(document)
    else:
        _print(verdict, reading, facts.to_json() if facts else {})
    if not verdict.mergeable:
        raise SystemExit(1)


def _files(reference: str, follow_links: bool) -> ByteSource:
    """The files of what a command line names; a path where nothing is has none."""
    path = local_path(reference)
    if is_there(path) or path.is_absolute() or reference.startswith("."):
        folder, only = (path.parent, path.name) if is_file(path) else (path, None)
        return FolderSource(folder, only, follow_links=follow_links)
    from orchestration.commands.looking.compared_models import files_named

    return files_named("ronghe inspect", reference)


def _with_adapter_faults(source: ByteSource, verdict: FolderVerdict) -> FolderVerdict:
    """Add what stands against merging an adapter into any base."""
    known = verdict.pickled or verdict.of_image_model
    if verdict.kind != "adapter" or verdict.faults or known:
        return verdict
    from merge_ops.sources import read_adapter

    try:
        read_adapter(verdict.location, source)
    except RongheError as error:
        return replace(verdict, faults=(str(error),))
    return verdict


def _print(verdict: FolderVerdict, reading: FolderReading, facts: dict[str, Any]) -> None:
    console = PlainConsole()
    kind = verdict.adapter or verdict.kind.replace("_", " ")
    where = shown(verdict.location)
    say(console, Text.assemble(f"{where}: ", (shown(kind), "bold"), f", {KINDS[verdict.kind]}"))
    for reason in verdict.why:
        say(console, f"  because {reason}")
    if facts:
        table = Table(show_header=False, box=None, padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        for name, value in facts.items():
            table.add_row(name.replace("_", " "), shown(_value(value)))
        console.print(table)
    for file in verdict.weights[:_SHOWN]:
        say(console, f"reads {file} ({reading.files.get(file, 0):,} bytes)")
    if verdict.weights[_SHOWN:]:
        say(console, f"reads {len(verdict.weights) - _SHOWN} more files")
    for file, reason in verdict.passed_over.items():
        say(console, f"passes over {file}: {reason}")
    for caution in verdict.cautions:
        say(console, marked("warning:", "yellow", caution))
    for fault in verdict.faults:
        say(console, marked("cannot be merged:", "red", fault))
    if verdict.mergeable:
        say(console, "can be merged" + _how(verdict))


def _how(verdict: FolderVerdict) -> str:
    return f" into its base, as 'base+{verdict.location}'" * (verdict.kind == "adapter")


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {count}" for name, count in value.items()) or "none"
    if isinstance(value, list | tuple):
        first = ", ".join(map(str, value[:_SHOWN]))
        return f"{first} and {len(value) - _SHOWN} more" if value[_SHOWN:] else first or "none"
    return f"{value:,}" if isinstance(value, int) else str(value) or "none"
