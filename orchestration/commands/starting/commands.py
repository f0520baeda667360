"""The commands that begin a catalog and look at it before any work."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]

Look = Annotated[
    bool,
    typer.Option("--no-look", help="Write far sources as they are, without asking for them."),
]
Links = Annotated[
    bool,
    typer.Option("--follow-links", help="Read links out of a model's folder: in your own folders."),
]


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new project's folder.")],
    base: Annotated[
        str, typer.Option(help="The base model: a folder, owner/name on the Hub, or a URI.")
    ],
    expert: Annotated[
        list[str], typer.Option(help="SOURCE or NAME=SOURCE of a fine-tune or adapter; repeatable.")
    ],
    suite: Annotated[
        str | None, typer.Option(help="A shipped suite, or a file of your own items.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of the comments: en or zh.")] = None,
    no_look: Look = False,
    follow_links: Links = False,
    as_json: AsJson = False,
) -> None:
    """Write a catalog for your own models into DIR: models, first recipes, comments."""
    from orchestration.commands.starting.first_catalog import LANGUAGES
    from orchestration.commands.starting.init_command import Beginning, run_init
    from orchestration.options import one_of, read
    from orchestration.settings import language as usual

    chosen = language or usual()
    read("ronghe init", "--language", chosen, lambda text: one_of(text, LANGUAGES))
    run_init(folder, Beginning(base, expert, suite, chosen, not no_look, follow_links), as_json)


@app.command()
def add(
    sources: Annotated[
        list[str], typer.Argument(metavar="MODEL...", help="SOURCE or NAME=SOURCE, each a model.")
    ],
    base: Annotated[
        str | None,
        typer.Option(help="The base model of the catalog that they are experts of."),
    ] = None,
    as_base: Annotated[
        bool, typer.Option("--as-base", help="They are base models, and no experts.")
    ] = False,
    no_look: Look = False,
    follow_links: Links = False,
    as_json: AsJson = False,
) -> None:
    """Add models to the catalog's models.yaml; comments and everything else in it stay."""
    from orchestration.commands.starting.init_command import run_add

    run_add(sources, base, as_base, not no_look, follow_links, as_json)


@app.command()
def check(
    sources: Annotated[
        bool, typer.Option("--sources", help="Also look at far models, over the network.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Say everything that is wrong with the catalog, before any work. Exit status 1 if anything."""
    from orchestration.commands.starting.check_command import run_check

    run_check(sources, strict, as_json)
