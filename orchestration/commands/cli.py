"""`ronghe`: the command line. Heavy imports wait until a command needs them."""

import gc as garbage
import sys
from gc import freeze
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

app = typer.Typer(
    help="Ronghe (融合): merge models, score what comes out, keep the lineage.",
    no_args_is_help=True,
    add_completion=False,
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
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Take what stands before a command."""


Config = Annotated[Path, typer.Argument(help="A mergekit-style YAML file.", show_default=False)]


class _MergeCommand(TyperCommand):
    """`ronghe merge` takes the options of mergekit-yaml beside its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the command line, with mergekit's options written as ours."""
        from orchestration.commands.mergekit_options import translated

        arguments, notes = translated(args)
        for note in notes:
            typer.echo(f"note: {note}", err=True)
        return super().parse_args(ctx, arguments)


@app.command(cls=_MergeCommand)
def merge(
    config: Config,
    out: Annotated[Path, typer.Argument(help="The output folder; new or empty.")],
    threads: Annotated[int, typer.Option(min=0, help="Worker threads; 0: one a core.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    memory: Annotated[str, typer.Option(help="Bound of the buffers, such as 512MiB.")] = "512MiB",
    shard_size: Annotated[str, typer.Option(help="Most data of a file of the output.")] = "5GB",
    masks: Annotated[
        Path | None, typer.Option(help="Of a merge by emr: a new folder for masks and scales.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace an old result; it stays until this is whole.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The seed of random methods, instead of the recipe's.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not ask transformers whether OUT loads.")
    ] = False,
    block: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Merge CONFIG into OUT. A `sweep` writes OUT/<coefficient>/ for every point.

    Options of mergekit-yaml are taken: docs/coming-from-mergekit.md.
    """
    from dataclasses import replace

    from orchestration.commands.merge_command import MergeOptions, run_merge

    settings = MergeOptions(threads, device, memory, shard_size, block or None, masks)
    settings = replace(settings, force=force, seed=seed, strict=strict, verify=not no_verify)
    run_merge(config, out, settings)


@app.command()
def plan(
    config: Config,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole plan as JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Ask transformers whether the output would load.")
    ] = False,
) -> None:
    """Show what merging CONFIG would do, from headers alone."""
    # The collector finds nothing in a process so short, and looking costs 6 % of its time.
    garbage.disable()
    from orchestration.commands.plan_command import show_plan

    show_plan(config, as_json=as_json, strict=strict, verify=verify)


@app.command()
def inspect(
    folder: Annotated[Path, typer.Argument(help="A model's folder or file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print the verdict as JSON.")] = False,
) -> None:
    """Say what FOLDER is and which weights are read. Exit status 1 when it cannot be merged."""
    from orchestration.commands.inspect_command import show_folder

    show_folder(folder, as_json=as_json)


@app.command()
def extract_lora(
    finetuned: Annotated[str, typer.Argument(help="The fine-tuned model's folder.")],
    base: Annotated[str, typer.Argument(help="Its base model's folder.")],
    out: Annotated[Path, typer.Argument(help="The adapter's folder; new or empty.")],
    rank: Annotated[int, typer.Option(min=1, help="The largest rank.")] = 128,
    distribute_scale: Annotated[
        bool, typer.Option(help="Singular values on both factors, or all on A.")
    ] = True,
    include: Annotated[
        list[str] | None, typer.Option(help="Only tensors that match this regular expression.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="No tensors that match this regular expression.")
    ] = None,
) -> None:
    """Extract a LoRA adapter from FINETUNED by truncated SVD, for PEFT or as `base+adapter`."""
    from merge_ops.jobs.extraction_plan import ExtractionSettings
    from orchestration.commands.extract_command import run_extraction

    kept = ExtractionSettings(rank, distribute_scale, tuple(include or ()), tuple(exclude or ()))
    run_extraction(finetuned, base, out, kept)


@app.command()
def merge_adapters(
    config: Config,
    out: Annotated[Path, typer.Argument(help="The adapter's folder; new or empty.")],
    factor_wise: Annotated[
        bool, typer.Option("--factor-wise", help="Average A and B each for itself (not exact).")
    ] = False,
) -> None:
    """Average the LoRA adapters that CONFIG lists as models into one adapter, exactly."""
    from orchestration.commands.adapter_command import run_adapter_average

    run_adapter_average(config, out, factor_wise)


@app.command()
def restore_expert(
    expert: Annotated[str, typer.Argument(help="The expert, as the recipe named it.")],
    out: Annotated[Path, typer.Argument(help="The restored checkpoint; new or empty.")],
    merged: Annotated[str, typer.Option(help="What emr made, with lambda 1.")],
    base: Annotated[str, typer.Option(help="The base model of that merge.")],
    masks: Annotated[Path, typer.Option(help="The folder of its masks (`merge --masks`).")],
) -> None:
    """Restore one EXPERT of a merge by emr from the shared checkpoint, its mask and its scale."""
    from orchestration.commands.emr_command import run_restoration

    run_restoration(expert, out, merged, base, masks)


@app.command()
def restore(
    name: Annotated[str, typer.Argument(help="A model, or RECIPE/champion.")],
    out: Annotated[Path, typer.Option(help="The folder to write; new or empty.")],
) -> None:
    """Write a model of the artifact store to a folder, byte for byte as it was pulled."""
    from orchestration.commands.restore_command import run_restore

    run_restore(name, out)


@app.command()
def refresh() -> None:
    """Observe the upstream models and re-merge and re-score what any change touches."""
    from orchestration.commands import refresh_command as commands

    commands.refresh()


@app.command()
def leaderboard() -> None:
    """Print the leaderboard, where the artifacts are, and what to do next."""
    from orchestration.commands import refresh_command as commands

    commands.leaderboard()


@app.command()
def verify(
    digests: Annotated[
        list[str] | None, typer.Argument(help="Only these, by digest or its first characters.")
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
) -> None:
    """Hash the store's artifacts again, and look at its refs. Exit status 1 when one is bad."""
    from orchestration.commands.verify_command import verify as run

    run(digests or [], kind, repair, made_from)


@app.command()
def doctor() -> None:
    """Compare Dagster's instance and the store. Exit status 1 when the store lacks something."""
    from orchestration.commands.doctor_command import doctor as run

    run()


@app.command()
def adopt_refs(
    source: Annotated[
        str | None, typer.Option("--from", help="Another catalog, whose refs become this one's.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, move nothing.")] = False,
) -> None:
    """Move refs of the time before catalogs had names below this catalog's name."""
    from orchestration.commands.store_commands import adopt

    adopt(source, dry_run)


@app.command()
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List, remove nothing.")] = False,
    grace: Annotated[
        str, typer.Option(help="How long an attempt must have been silent: 90s, 30m, 24h or 7d.")
    ] = "24h",
) -> None:
    """Remove what killed runs left in the store: attempts nobody points to, half-done uploads."""
    from orchestration.commands.store_commands import collect

    collect(dry_run, grace)


@app.command()
def refs(
    asset: Annotated[str, typer.Argument(help="An asset, such as model or ties/champion.")],
    partition: Annotated[str | None, typer.Argument(help="Only this partition.")] = None,
    catalog: Annotated[str | None, typer.Option(help="Those of another catalog.")] = None,
) -> None:
    """Show what ASSET pointed to when, which run did that, and by whom."""
    from orchestration.commands.store_commands import history

    history(asset, partition, catalog)


def main() -> None:
    """Run the command line; an error of ours is one message and exit status 2."""
    try:
        app()
    except ModuleNotFoundError as error:
        from orchestration.commands.extras import advice

        told = advice(" ".join(["ronghe", *sys.argv[1:2]]), error)
        if told is None:
            raise
        print(told, file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    except Exception as error:
        from eval_ops.errors import EvalError
        from merge_ops.errors import RongheError
        from resources.errors import ResourceError

        if not isinstance(error, RongheError | ResourceError | EvalError):
            raise
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None
    finally:
        freeze()  # what lives now ends with the process; walking it takes up to half a second


if __name__ == "__main__":
    main()
