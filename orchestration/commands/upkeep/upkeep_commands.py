"""The commands that keep a store: look at it, compare it with Dagster, clean it."""

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands import completion

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command()
def verify(
    digests: Annotated[
        list[str] | None,
        typer.Argument(help="Only these: names, digests, or a digest's first characters."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(help="Only artifacts of this kind, such as checkpoint.")
    ] = None,
    repair: Annotated[
        bool,
        typer.Option("--repair", help="Set bad parts aside; the next refresh makes them again."),
    ] = False,
    made_from: Annotated[
        bool,
        typer.Option("--made-from", help="With --repair: also what was made from these DIGESTS."),
    ] = False,
    signed: Annotated[
        bool, typer.Option("--signed", help="Look at signatures (`ronghe sign`) instead.")
    ] = False,
    public_key: Annotated[
        Path | None, typer.Option(help="With --signed: the key that must have signed, as PEM.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hash the store's artifacts again, and look at its refs. Exit status 1 when one is bad."""
    if signed or public_key is not None:
        from orchestration.commands.artifacts.signing_command import run_check

        run_check(digests or [], signed, public_key, kind, repair or made_from, as_json)
        return
    from orchestration.commands.upkeep.verify_command import verify as run

    run(digests or [], kind, repair, made_from, as_json)


@app.command()
def doctor(
    as_json: AsJson = False,
) -> None:
    """Say what this machine lacks, and compare Dagster and the store. Exit status 1 if they differ.

    It is 1 when the store lacks what Dagster believes made; what the machine lacks is no fault.
    """
    from orchestration.commands.upkeep.doctor_command import doctor as run

    run(as_json)


@app.command()
def adopt_refs(
    source: Annotated[
        str | None, typer.Option("--from", help="Another catalog, whose refs become this one's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, move nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Move refs of the time before catalogs had names below this catalog's name."""
    from orchestration.commands.upkeep.store_commands import adopt

    adopt(source, dry_run, as_json)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, remove nothing.")] = False,
    grace: Annotated[
        str, typer.Option(help="How long an attempt must have been silent: 90s, 30m, 24h or 7d.")
    ] = "24h",
    as_json: AsJson = False,
) -> None:
    """Remove what killed runs left in the store: attempts nobody points to, half-done uploads."""
    from orchestration.commands.upkeep.store_commands import collect

    collect(dry_run, grace, as_json)


@app.command()
def prune(
    keep: Annotated[
        str, typer.Option(help="What stays written: 'champions', or 'champions,top:3'.")
    ] = "champions",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, remove nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove the weights of candidates; manifests and scores stay, and each can be made again."""
    from orchestration.commands.upkeep.prune_command import run_prune

    run_prune(keep, dry_run, as_json)


@app.command()
def refs(
    asset: Annotated[
        str,
        typer.Argument(
            help="An asset, such as model or ties/champion.", autocompletion=completion.assets
        ),
    ],
    partition: Annotated[str | None, typer.Argument(help="Only this partition.")] = None,
    catalog: Annotated[str | None, typer.Option(help="Those of another catalog.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what ASSET pointed to when, which run did that, and by whom."""
    from orchestration.commands.upkeep.store_commands import history

    history(asset, partition, catalog, as_json)
