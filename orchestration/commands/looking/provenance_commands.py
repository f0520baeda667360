"""The commands on where a checkpoint comes from: its lineage, its descendants, and made again."""

from typing import Annotated

import typer

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command(epilog="Example:  ronghe lineage ties/champion")
def lineage(
    name: Annotated[
        str,
        typer.Argument(
            help="A model, RECIPE/champion, RECIPE/merged_checkpoint[PARTITION], or a digest."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Print what NAME was made of, with weights, digests, licences and what these ask for."""
    from orchestration.commands.looking.lineage_command import show_lineage

    show_lineage(name, as_json)


@app.command(epilog="Example:  ronghe impact herbs")
def impact(
    model: Annotated[
        str,
        typer.Argument(help="A model, a training run, what a recipe made, or a digest."),
    ],
    as_json: AsJson = False,
) -> None:
    """Print everything in the store that MODEL went into, champions marked."""
    from orchestration.commands.looking.lineage_command import show_impact

    show_impact(model, as_json)


@app.command(epilog="Example:  ronghe reproduce ./merged/README.md --model herbs=./herbs")
def reproduce(
    what: Annotated[
        str,
        typer.Argument(
            help="A card, the folder it is in, or a name or digest of the store.",
            metavar="CARD|NAME|DIGEST",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(help="Where an input is: NAME=PLACE, or DIGEST=PLACE."),
    ] = None,
    threads: Annotated[str | None, typer.Option(help="Worker threads; 0: one a core.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.")] = None,
    memory: Annotated[str | None, typer.Option(help="Bound of the buffers.")] = None,
    shard_size: Annotated[str, typer.Option(help="Most data of a file, as it was.")] = "5GB",
    as_json: AsJson = False,
) -> None:
    """Plan and merge a checkpoint again, and compare the bytes.

    Exit status 0: the same; 1: other bytes, no input of that digest, or nothing to compare with.
    """
    from orchestration.commands.looking.reproduce_command import ReproduceOptions, run_reproduce

    options = ReproduceOptions(tuple(model or ()), threads, device, memory, shard_size, as_json)
    run_reproduce(what, options)
