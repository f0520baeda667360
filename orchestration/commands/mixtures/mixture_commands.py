"""The commands that measure mixtures of experts: gates of new ones, saliency of those there are."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command(epilog="Example:  ronghe gates moe.yaml --picture routing.png")
def gates(
    config: Annotated[Path, typer.Argument(help="A mergekit-moe file.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Write the gates to this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw where prompts go: a PNG, prompts by experts.")
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(help="hidden, hidden_avg or router_input, instead of the file's gate_mode."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Worker threads; 0: one a core.", show_default="0")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the shares of every prompt and layer as JSON.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings are errors.")] = False,
) -> None:
    """Measure the gates of CONFIG on its base, and show to which experts its prompts go.

    Gates of the same base, prompts and mode are measured once and kept.
    """
    from orchestration.commands.mixtures.gates_command import GateOptions, run_gates

    run_gates(config, GateOptions(out, picture, mode, device, threads, as_json, strict))


@app.command(
    epilog="Example:  ronghe moe-saliency ./mixtral texts.jsonl --out saliency.safetensors"
)
def moe_saliency(
    model: Annotated[
        str, typer.Argument(help="A mixture of experts: a folder, or owner/name of the Hub.")
    ],
    texts: Annotated[
        Path, typer.Argument(help="Calibration texts: one a line, or .jsonl with `text`.")
    ],
    out: Annotated[Path | None, typer.Option(help="Write the statistics to this file.")] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the saliency: a PNG, layers by moe_experts.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu or cuda.", show_default="auto")
    ] = None,
    threads: Annotated[
        str | None, typer.Option(help="Worker threads; 0: one a core.", show_default="0")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the numbers of every layer as JSON.")
    ] = False,
) -> None:
    """Measure what each moe_expert of MODEL does on TEXTS, for a `moe:` step that keeps fewer.

    Statistics of the same model and texts are measured once and kept.
    """
    from orchestration.commands.mixtures.saliency_command import SaliencyOptions, run_saliency

    run_saliency(model, texts, SaliencyOptions(out, picture, device, threads, as_json))
