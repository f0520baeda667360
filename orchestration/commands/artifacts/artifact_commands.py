"""The commands on what the store holds: found, fetched, withdrawn, signed and sent elsewhere."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

Named = Annotated[
    str,
    typer.Argument(
        help="A name as `ronghe ls` prints it, champion/RECIPE, or a digest's first characters.",
        show_default=False,
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@app.command(epilog="Example:  ronghe ls --uses qwen-math --kind champion")
def ls(
    uses: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Only what was made from MODEL.")
    ] = None,
    stale: Annotated[
        bool, typer.Option("--stale", help="Only what was made from an earlier model.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option(metavar="L", help="Only what has, or was made under, licence L.")
    ] = None,
    withdrawn: Annotated[
        bool, typer.Option("--withdrawn", help="Only what rests on something withdrawn.")
    ] = False,
    kind: Annotated[
        str | None,
        typer.Option(help="model, champion, checkpoint, step, another asset's, or all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what the catalog has in its store: models, champions, and what recipes made."""
    from orchestration.commands.list_command import run_list

    run_list(uses, stale, licence, withdrawn, kind, as_json)


@app.command(epilog="Example:  ronghe show ties/champion")
def show(name: Named, as_json: AsJson = False) -> None:
    """Show what NAME stands for: content, models, licences, scores, and how to get it."""
    from orchestration.commands.list_command import run_show

    run_show(name, as_json)


@app.command(epilog="Example:  vllm serve $(ronghe path champion/ties)")
def path(name: Named, as_json: AsJson = False) -> None:
    """Print a local folder of NAME that `from_pretrained` and vLLM take; read it, never write it.

    It is brought here first where the store is far, and merged where it was only planned.
    """
    from orchestration.commands.artifacts.path_command import run_path

    run_path(name, as_json)


@app.command(
    epilog='Example:  ronghe withdraw qwen-math --because "trained on the test items"',
)
def withdraw(
    name: Named,
    because: Annotated[
        str, typer.Option(help="Why; on record with your name.", show_default=False)
    ],
    warn_only: Annotated[
        bool, typer.Option("--warn-only", help="Champions that rest on it stay.")
    ] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take a withdrawal back.")] = False,
    as_json: AsJson = False,
) -> None:
    """Withdraw a model, in all its versions, and demote champions that descend from it.

    Nothing is removed. A digest instead of a name withdraws that content alone.
    """
    from orchestration.commands.artifacts.withdraw_command import run_withdraw

    run_withdraw(name, because, warn_only, undo, as_json)


@app.command(epilog="Example:  ronghe sign champion/ties --key team.pem")
def sign(
    name: Named,
    key: Annotated[
        Path, typer.Option(help="A private key of an elliptic curve, as PEM.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Sign the files of NAME with a key of yours; `ronghe verify --signed` looks at it again."""
    from orchestration.commands.artifacts.signing_command import run_sign

    run_sign(name, key, as_json)


@app.command(epilog="Example:  ronghe push champion/ties our-team/herbs-7b --dry-run")
def push(
    name: Named,
    repository: Annotated[
        str, typer.Argument(help="The repository of the Hub, owner/name.", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent: files, bytes, the card.")
    ] = False,
    private: Annotated[
        bool, typer.Option("--private", help="A repository that is made now is private.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Push NAME to the Hugging Face Hub as one commit; what was withdrawn is refused.

    The Hub, or the mirror of HF_ENDPOINT; a token by HF_TOKEN or `hf auth login`.
    """
    from orchestration.commands.artifacts.export_command import run_push

    run_push(name, repository, dry_run, private, as_json)


@app.command(epilog="Example:  ronghe export champion/ties --oci ./ties-oci")
def export(
    name: Named,
    oci: Annotated[
        Path, typer.Option(help="The folder to write; new or empty.", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Export NAME as an OCI image layout by CNCF ModelPack's model-spec, for oras or a registry."""
    from orchestration.commands.artifacts.export_command import run_export

    run_export(name, oci, as_json)


@app.command(epilog="Example:  ronghe pull champion/ties ./ties")
def pull(
    name: Named,
    out: Annotated[Path, typer.Argument(help="The folder to write; new or empty.")],
    as_json: AsJson = False,
) -> None:
    """Write NAME into the folder OUT, all or nothing, with a card in the catalog's words."""
    from orchestration.commands.artifacts.restore_command import run_restore

    run_restore(name, out, as_json)
