"""`ronghe`: the command line. Heavy imports wait until a command needs them."""

import gc as garbage
import sys
from gc import freeze
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from orchestration.commands.artifacts.artifact_commands import app as artifact_app
from orchestration.commands.catalog_commands import app as catalog_app
from orchestration.commands.looking.comparison_commands import app as comparison_app
from orchestration.commands.looking.provenance_commands import app as provenance_app
from orchestration.commands.mixtures.mixture_commands import app as mixture_app
from orchestration.commands.starting.commands import app as starting_app
from orchestration.commands.upkeep.upkeep_commands import app as upkeep_app

EXAMPLES = """Merge two models:  ronghe merge recipe.yaml out

What it would do:  ronghe plan recipe.yaml

The team's catalog:  ronghe refresh, then ronghe leaderboard, ronghe ui

Exit status: 0 done; 1 something is wrong with the data, or a part failed; 2 wrong use, or an input
that was refused before any work; 130, 143 and 129 stopped by Ctrl-C, SIGTERM and SIGHUP."""

app = typer.Typer(
    help="Ronghe (融合): merge models, score what comes out, keep the lineage.",
    epilog=EXAMPLES,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"ronghe {version('ronghe')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_print_version, is_eager=True, help="The version."
        ),
    ] = False,
) -> None:
    """Take what stands before a command."""


Config = Annotated[Path, typer.Argument(help="A mergekit-style YAML file.", show_default=False)]


FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Read links out of a model's folder: in your own folders."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


class _MergeCommand(TyperCommand):
    """`ronghe merge` takes the options of mergekit-yaml beside its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, with mergekit's options written as ours."""
        from merge_ops.errors import shown
        from orchestration.commands.mergekit_options import translated

        arguments, notes = translated(args)
        for note in notes:
            typer.echo(f"note: {shown(note)}", err=True)
        return super().parse_args(ctx, arguments)


@app.command(cls=_MergeCommand)
def merge(
    config: Config,
    out: Annotated[Path, typer.Argument(help="The output folder; new or empty.")],
    threads: Annotated[
        str | None, typer.Option(help="Worker threads; 0: one a core.", show_default="0")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(help="Bound of the buffers, such as 512MiB.", show_default="512MiB"),
    ] = None,
    shard_size: Annotated[str, typer.Option(help="Most data of a file of the output.")] = "5GB",
    masks: Annotated[
        Path | None, typer.Option(help="Of a merge by emr: a new folder for masks and scales.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an old result; it stays until this is whole.")
    ] = False,
    seed: Annotated[
        str | None, typer.Option(help="The seed of random methods, instead of the recipe's.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not ask transformers whether OUT loads.")
    ] = False,
    follow_links: FollowLinks = False,
    as_json: AsJson = False,
    block: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Merge CONFIG into OUT. A `sweep` writes OUT/<coefficient>/ for every point.

    Options of mergekit-yaml are taken: docs/coming-from-mergekit.md.
    """
    from dataclasses import replace

    from orchestration.commands.merging.merge_command import MergeOptions, run_merge

    settings = MergeOptions(threads, device, memory, shard_size, block or None, masks)
    settings = replace(settings, force=force, seed=seed, strict=strict, verify=not no_verify)
    settings = replace(settings, follow_links=follow_links, as_json=as_json)
    run_merge(config, out, settings)


@app.command()
def plan(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Ask transformers whether the output would load.")
    ] = False,
    follow_links: FollowLinks = False,
) -> None:
    """Show what merging CONFIG would do, from headers alone."""
    # The collector finds nothing in a process so short, and looking costs 6 % of its time.
    garbage.disable()
    from orchestration.commands.merging.plan_command import show_plan

    show_plan(config, as_json, strict, verify, follow_links)


@app.command(epilog="Example:  ronghe inspect SUSPECT --against my/expert --base owner/base")
def inspect(
    folder: Annotated[
        str, typer.Argument(help="A model: folder, file or name.", show_default=False)
    ],
    against: Annotated[
        list[str] | None, typer.Option(help="Models that may be in it; give it for each.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="With --against: the base of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
    threads: Annotated[
        str | None, typer.Option(help="With --against: worker threads.", show_default="0")
    ] = None,
    memory: Annotated[
        str | None, typer.Option(help="With --against: bound of the buffers.")
    ] = None,
    follow_links: FollowLinks = False,
) -> None:
    """Say what FOLDER is and which weights are read. Exit status 1 when it cannot be merged.

    With --against say instead whether these models are parts of it. Exit status 1 when one is.
    """
    if against or base:
        from orchestration.commands.looking.suspect_command import Suspicion, show_suspect

        options = (as_json, threads, memory, follow_links)
        show_suspect(folder, Suspicion(tuple(against or ()), base, *options))
        return
    from orchestration.commands.looking.inspect_command import show_model

    show_model(folder, as_json, follow_links)


@app.command()
def extract_lora(
    finetuned: Annotated[str, typer.Argument(help="The fine-tuned model's folder.")],
    base: Annotated[str, typer.Argument(help="Its base model's folder.")],
    out: Annotated[Path, typer.Argument(help="The adapter's folder; new or empty.")],
    rank: Annotated[str, typer.Option(help="The largest rank.")] = "128",
    distribute_scale: Annotated[
        bool, typer.Option(help="Singular values on both factors, or all on A.")
    ] = True,
    include: Annotated[
        list[str] | None, typer.Option(help="Only tensors that match this regular expression.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No tensors that match this regular expression.")
    ] = None,
    follow_links: FollowLinks = False,
    as_json: AsJson = False,
) -> None:
    """Extract a LoRA adapter from FINETUNED by truncated SVD, for PEFT or as `base+adapter`."""
    from merge_ops.jobs.extraction_plan import ExtractionSettings
    from orchestration.commands.merging.extract_command import run_extraction
    from orchestration.options import read, whole

    most = read("ronghe extract-lora", "--rank", rank, lambda text: whole(text, 1, 1_000_000))
    kept = ExtractionSettings(most, distribute_scale, tuple(include or ()), tuple(exclude or ()))
    run_extraction(finetuned, base, out, kept, follow_links, as_json)


@app.command()
def merge_adapters(
    config: Config,
    out: Annotated[Path, typer.Argument(help="The adapter's folder; new or empty.")],
    factor_wise: Annotated[
        bool, typer.Option("--factor-wise", help="Average A and B each for itself (not exact).")
    ] = False,
    follow_links: FollowLinks = False,
    as_json: AsJson = False,
) -> None:
    """Average the LoRA adapters that CONFIG lists as models into one adapter, exactly."""
    from orchestration.commands.merging.adapter_command import run_adapter_average

    run_adapter_average(config, out, factor_wise, follow_links, as_json)


@app.command()
def restore_expert(
    expert: Annotated[str, typer.Argument(help="The expert, as the recipe named it.")],
    out: Annotated[Path, typer.Argument(help="The restored checkpoint; new or empty.")],
    merged: Annotated[str, typer.Option(help="What emr made, with lambda 1.")],
    base: Annotated[str, typer.Option(help="The base model of that merge.")],
    masks: Annotated[Path, typer.Option(help="The folder of its masks (`merge --masks`).")],
    as_json: AsJson = False,
) -> None:
    """Restore one EXPERT of a merge by emr from the shared checkpoint, its mask and its scale."""
    from orchestration.commands.merging.emr_command import run_restoration

    run_restoration(expert, out, merged, base, masks, as_json)


app.add_typer(mixture_app)
app.add_typer(comparison_app)
app.add_typer(starting_app)
app.add_typer(provenance_app)
app.add_typer(catalog_app)
app.add_typer(upkeep_app)
app.add_typer(artifact_app)


def _run(arguments: list[str]) -> None:
    from orchestration.commands.help_texts import is_asked

    if is_asked(arguments):
        from orchestration.commands.help_texts import with_help
        from orchestration.settings import language

        with_help(app, language())()
    else:
        app()


def main() -> None:
    """Run the command line; an error of ours is one message and exit status 2, a place's is 1."""
    try:
        _run(sys.argv[1:])
    except ModuleNotFoundError as error:
        from orchestration.commands.extras import advice

        told = advice(" ".join(["ronghe", *sys.argv[1:2]]), error)
        if told is None:
            raise
        print(told, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except Exception as error:
        from eval_ops.errors import EvalError
        from merge_ops.errors import RongheError, shown
        from resources.errors import ResourceError

        if isinstance(error, RongheError | ResourceError | EvalError):
            told = shown(f"{type(error).__name__}: {error}", lines=True)
            print(told, file=sys.stderr)  # noqa: T201
            raise SystemExit(2) from None
        from orchestration.commands.machine_faults import machine_fault

        told = machine_fault(error)
        if told is None:
            raise
        print(shown(told, lines=True), file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    finally:
        freeze()  # what lives now ends with the process; walking it takes up to half a second


if __name__ == "__main__":
    main()
