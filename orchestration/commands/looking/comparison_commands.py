"""The commands that look at checkpoints beside one another: what differs, is it what we made."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Model = Annotated[
    str,
    typer.Argument(
        help="A folder, owner/name of the Hub, base+adapter, or a name of the catalog.",
        show_default=False,
    ),
]
Threads = Annotated[
    str | None, typer.Option(help="Worker threads; 0: one a core.", show_default="0")
]
Memory = Annotated[
    str | None,
    typer.Option(help="Bound of the buffers, such as 512MiB.", show_default="512MiB"),
]
FollowLinks = Annotated[
    bool,
    typer.Option("--follow-links", help="Read links out of a model's folder: in your own folders."),
]


@app.command(epilog="Example:  ronghe diff ./merged owner/expert --base owner/base --json")
def diff(
    a: Model,
    b: Model,
    base: Annotated[
        str | None, typer.Option(help="Compare what both changed of this model.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
    threads: Threads = None,
    memory: Memory = None,
    follow_links: FollowLinks = False,
) -> None:
    """Compare checkpoints A and B: tensors, norms, cosines, config, tokenizer, chat template.

    Exit status 1 where anything differs.
    """
    from orchestration.commands.looking.diff_command import DiffOptions, run_diff

    run_diff(a, b, DiffOptions(base, as_json, threads, memory, follow_links))


@app.command(epilog="Example:  ronghe protection-key my.key.json")
def protection_key(
    path: Annotated[Path, typer.Argument(help="The file to write; there may be none yet.")],
    kinds: Annotated[
        list[str] | None,
        typer.Option(help="mlp, vo, qk, heads, norms, residual; all without it."),
    ] = None,
    no_scales: Annotated[
        bool, typer.Option("--no-scales", help="Orders and signs alone: for float16.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Write a new key for `protect:` steps, which keep a model's function and hide its weights."""
    from orchestration.commands.merging.protection_command import write_key

    write_key(path, kinds or [], not no_scales, as_json)


@app.command(epilog="Example:  ronghe verify-merge ./merged --recipe recipe.yaml")
def verify_merge(
    checkpoint: Model,
    recipe: Annotated[
        Path | None, typer.Option(help="The file that it is said to be made by.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="With --adapter: the adapter's base.")] = None,
    adapter: Annotated[
        str | None, typer.Option(help="Say instead whether this adapter is in it, and how much.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON.")] = False,
    threads: Threads = None,
    memory: Memory = None,
    follow_links: FollowLinks = False,
) -> None:
    """Merge in memory what a recipe gives, and compare it with CHECKPOINT, byte by byte.

    Exit status 1 where it is not what the recipe gives, or the adapter is not in it.
    """
    from orchestration.commands.looking.verify_merge_command import MergeClaim, run_verify_merge

    claim = MergeClaim(recipe, base, adapter)
    run_verify_merge(checkpoint, claim, as_json, (threads, memory), follow_links)
