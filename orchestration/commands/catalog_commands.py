"""The commands on a team's catalog and its store, of which `ronghe` has a second half."""

from pathlib import Path
from typing import Annotated

import typer

from orchestration.commands import completion

app = typer.Typer()

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command()
def restore(
    name: Annotated[
        str,
        typer.Argument(help="A model, or RECIPE/champion.", autocompletion=completion.checkpoints),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write; new or empty.")],
    as_json: AsJson = False,
) -> None:
    """Write a model of the artifact store to a folder, byte for byte as it was pulled."""
    from orchestration.commands.artifacts.restore_command import run_restore

    run_restore(name, out, as_json)


@app.command()
def materialize(
    name: Annotated[
        str, typer.Argument(help="RECIPE/champion, RECIPE/merged_checkpoint[PARTITION], a digest.")
    ],
    as_json: AsJson = False,
) -> None:
    """Write the files of a checkpoint that was planned and scored and is not written yet."""
    from orchestration.commands.artifacts.materialize_command import run_materialize

    run_materialize(name, as_json)


@app.command()
def score(
    suite: Annotated[Path, typer.Argument(help="The suite's YAML file.")],
    endpoint: Annotated[str, typer.Option(help="The API's root, http://host:8000/v1.")],
    model: Annotated[str, typer.Option(help="What the server calls the model.")],
    tokenizer: Annotated[
        Path | None,
        typer.Option(help="The folder of its tokenizer; without, it can only write, by chat."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Where to write model, benchmark, split, score and n.")
    ] = None,
    concurrent: Annotated[int, typer.Option(min=1, help="Requests at a time.")] = 1,
    max_length: Annotated[int, typer.Option(min=2, help="The most tokens it reads.")] = 4096,
    as_json: AsJson = False,
) -> None:
    """Score a model that is served already, by vLLM or another OpenAI-compatible server."""
    from orchestration.commands.evidence.score_command import run_score

    run_score(suite, endpoint, model, tokenizer, csv, concurrent, max_length, as_json)


@app.command()
def refresh(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be made, its GB and minutes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Observe the upstream models and re-merge and re-score what any change touches."""
    from orchestration.commands import refresh_command as commands

    (commands.refresh_dry_run if dry_run else commands.refresh)(as_json)


@app.command()
def ui(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 3000,
    host_name: Annotated[
        list[str] | None, typer.Option(help="A further name of this page, such as a proxy's.")
    ] = None,
    daemon: Annotated[bool, typer.Option(help="Start the daemon beside it.")] = True,
    workspace: Annotated[
        Path | None, typer.Option(help="Dagster's file of code locations.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Serve Dagster's web page, guarded against other pages, with the daemon beside it."""
    from orchestration.commands.pages.ui_command import run_ui

    run_ui(host, port, host_name or [], daemon, workspace, as_json)


@app.command()
def leaderboard(
    top: Annotated[int | None, typer.Option(min=1, help="Only so many rows of a suite.")] = None,
    sort: Annotated[
        str,
        typer.Option(
            help="mean, validation, name, vs-base, vs-best-expert, vs-average, or a benchmark."
        ),
    ] = "mean",
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print all numbers as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
    evidence: Annotated[
        bool,
        typer.Option("--evidence", help="Also what merges keep and break, and what nothing beats."),
    ] = False,
) -> None:
    """Print the leaderboard, where the artifacts are, and what to do next."""
    from orchestration.commands.evidence.leaderboard_command import BoardOptions
    from orchestration.commands.evidence.leaderboard_command import leaderboard as run

    form = "csv" if as_csv else "json" if as_json else "table"
    run(BoardOptions(top, sort, suite, form, evidence))


@app.command()
def site(
    out: Annotated[
        Path | None, typer.Option(help="Also write it to this folder: new, empty, or a site.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it is as JSON.")] = False,
) -> None:
    """Render the catalog as static pages, for a browser or any web host, and say where they are.

    Example: `ronghe site --out public`
    """
    from orchestration.commands.pages.site_command import run_site

    run_site(out, as_json)


@app.command()
def report(
    html: Annotated[
        Path | None, typer.Option(help="Write it to this file, one page that needs nothing else.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Rows of each suite's leaderboard.")] = 20,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    since: Annotated[
        str, typer.Option(help="Only changes since this day, such as 2026-11-01.")
    ] = "",
    language: Annotated[str | None, typer.Option(help="Of the page: en or zh.")] = None,
    as_json: AsJson = False,
) -> None:
    """Report champions, leaderboard, licences and changes: one page to send, print or file.

    Without --html it prints champions and the last changes.
    """
    from orchestration.commands.pages.report_command import Wanted, run_report

    run_report(Wanted(html, top, suite, since, language, as_json))


@app.command()
def routing(
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    as_json: AsJson = False,
) -> None:
    """Say what routing between models would buy over the best single one, from stored scores."""
    from orchestration.commands.evidence.routing_command import run_routing

    run_routing(suite, as_json)


Because = Annotated[str, typer.Option(help="Why; on record with your name.", show_default=False)]
Named = Annotated[
    str,
    typer.Argument(
        help="A model, a row of the leaderboard, RECIPE/champion,"
        " RECIPE/merged_checkpoint[PARTITION], or a digest's first characters.",
        autocompletion=completion.checkpoints,
    ),
]


@app.command()
def compare(
    first: Named,
    second: Named,
    suite: Annotated[str | None, typer.Option(help="Only this suite.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare two checkpoints on the same items. Exit status 1 when no suite has scores of both."""
    from orchestration.commands.evidence.compare_command import run_compare

    run_compare(first, second, suite, as_json)


@app.command()
def promote(
    name: Named,
    because: Because,
    recipe: Annotated[
        str | None, typer.Option(help="Whose champion, where several recipes make it.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make NAME the champion of its recipe, whatever the gate says, with a reason on record."""
    from orchestration.commands.evidence.champion_commands import run_promote

    run_promote(name, because, recipe, as_json)


@app.command()
def rollback(
    recipe: Annotated[
        str,
        typer.Argument(help="The recipe whose champion it is.", autocompletion=completion.recipes),
    ],
    because: Because,
    as_json: AsJson = False,
) -> None:
    """Make the champion before this one the champion of RECIPE again."""
    from orchestration.commands.evidence.champion_commands import run_rollback

    run_rollback(recipe, because, as_json)


@app.command()
def champion(
    recipe: Annotated[
        str,
        typer.Argument(help="The recipe whose champion it is.", autocompletion=completion.recipes),
    ],
    history: Annotated[bool, typer.Option("--history", help="Every change, and why.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the champion of RECIPE, and whether it is what the recipe makes today."""
    from orchestration.commands.evidence.champion_commands import show_champion

    show_champion(recipe, history, as_json)
