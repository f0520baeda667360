"""`ronghe gates`: gates of a mixture's routers, measured on its base, and where prompts go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work.measuring.gating import Measured, gates_of, routes_of
from assets.work.measuring.model_child import Base, Running
from merge_ops.calibration import gate_cautions
from merge_ops.calibration.gates import write_gates
from merge_ops.errors import ChangedInputError, Fault, OutputError, SettingsError
from orchestration.commands.cautions import refuse_cautions, show_cautions
from orchestration.commands.console import print_json, progress_bar, say
from orchestration.commands.extras import require
from orchestration.commands.mixtures.moe_prompts import read_moe_prompts
from orchestration.commands.models.input_digests import content_digest
from orchestration.commands.models.local_models import find_places, folders_of, path_of
from orchestration.commands.store_tables import make_list_console, print_table
from orchestration.settings import how_to_compute

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

COMMAND = "ronghe gates"
MOST_ROWS = 40  # prompts of the table; --json has all
ESTIMATE = (
    "Shares are of what the base computes; behind the first layer the merged model computes a"
    " little else"
)


@dataclass(frozen=True)
class GateOptions:
    """What `ronghe gates` was asked for, beside the recipe."""

    out: Path | None = None
    picture: Path | None = None
    mode: str | None = None
    device: str | None = None
    threads: str | None = None
    as_json: bool = False
    strict: bool = False


def run_gates(recipe: Path, options: GateOptions) -> None:
    """Measure the gates of a mergekit-moe file, and show where its prompts would be routed."""
    for module in ("torch", "transformers"):
        require(module)
    for option, path in (("--out", options.out), ("--picture", options.picture)):
        check_place(COMMAND, option, path)
    read = read_moe_prompts(recipe)
    how = how_to_compute(COMMAND, options.threads, options.device)
    base = base_of(str(recipe), read.base)
    running = running_on(how.device, how.threads)
    notes = make_list_console() if not options.as_json else _errors()
    mode = options.mode or read.mode
    measured = measured_gates(base, read.prompts, mode, running, notes)
    cautions = gate_cautions(measured.gates, f"gates of {recipe}", measured.mode)
    if options.strict:
        refuse_cautions(str(recipe), cautions)
    of_experts = read.prompts[: len(read.models)]
    texts = [(number, text) for number, each in enumerate(of_experts) for text in each[0]]
    bar = progress_bar(_errors())
    with bar:
        task = bar.add_task("routing prompts", total=None)
        shares = routes_of(
            base,
            [text for _, text in texts],
            {layer: rows[: len(read.models)] for layer, rows in measured.gates.items()},
            read.experts_per_token,
            running,
            lambda done, whole: bar.update(task, completed=done, total=whole),
        )
    _check_unchanged(base)
    report = Report(read.models, read.experts_per_token, texts, shares)
    if options.out is not None:
        write_gates(options.out, measured.gates, measured.metadata)
    if options.picture is not None:
        _write_picture(options.picture, report)
    if options.as_json:
        told = {"mode": measured.mode, "key": measured.key, **report.to_json()}
        told["cautions"] = [str(each) for each in cautions]
        print_json(told)
        return
    _show(notes, report, measured)
    show_cautions(notes, cautions)
    for what, path in (("gates", options.out), ("picture", options.picture)):
        if path is not None:
            say(notes, f"{what}: {path}")


def base_of(subject: str, reference: str) -> Base:
    """Return the base that a recipe names, downloaded where it is not here, with its digest.

    Raises MissingModelError, and SettingsError for what no model can be run of.
    """
    if len(folders_of(reference)) > 1:
        problem = f"is '{reference}', an adapter on a base; merge the two first and name the result"
        raise SettingsError(subject, [Fault("base_model", f"{problem}: gates need one model")])
    (place,) = find_places(subject, [reference]).values()
    folder = path_of(place)
    if not folder.is_dir():
        problem = f"is the file {folder}; gates need a folder with a config and a tokenizer"
        raise SettingsError(subject, [Fault("base_model", problem)])
    return Base(folder, reference, content_digest(folder))


def running_on(device: str, threads: int) -> Running:
    """Return how a base is run on a device, of which `auto` is CUDA where it is there."""
    from merge_ops.stream import choose_device

    return Running(choose_device(device), threads)


def measured_gates(
    base: Base,
    prompts: Sequence[tuple[Sequence[str], Sequence[str]]],
    mode: str,
    running: Running,
    notes: "Console",
) -> Measured:
    """Return gates, measured with a bar where they are not known yet. Raises EvalError.

    Raises ChangedInputError where the base is another one when they are done.
    """
    bar = progress_bar(_errors())
    with bar:
        task = bar.add_task(f"measuring gates on {base.called}", total=None)
        measured = gates_of(
            base,
            prompts,
            mode,
            running,
            lambda done, whole: bar.update(task, completed=done, total=whole),
        )
    _check_unchanged(base)
    if measured.memoized:
        say(notes, f"gates of these prompts on {base.called} were measured before")
    return measured


def _check_unchanged(base: Base) -> None:
    """What is unchanged since it was hashed is not read again."""
    if content_digest(base.folder) != base.digest:
        raise ChangedInputError(
            f"{base.called} changed while gates were measured; wait until whatever writes it is"
            " done, and run again"
        )


@dataclass(frozen=True)
class Report:
    """Where prompts go: `texts` with the moe_expert that each is of, `shares` of each moe_expert.

    `shares` is [texts, layers, experts]; `models` are the source models in the order of the rows.
    """

    models: Sequence[str]
    experts_per_token: int
    texts: Sequence[tuple[int, str]]
    shares: "NDArray[np.float64]"

    @property
    def means(self) -> "NDArray[np.float64]":
        """Return the shares as means over the layers, [texts, experts]."""
        return self.shares.mean(axis=1)

    @property
    def labels(self) -> list[str]:
        """Return a name for each moe_expert: its number and the end of its source model."""
        return [f"{number}: {Path(name).name}" for number, name in enumerate(self.models)]

    def to_json(self) -> dict[str, Any]:
        """Return the report as plain data, with the first moe_experts of each layer."""
        return {
            "experts": list(self.models),
            "experts_per_token": self.experts_per_token,
            "prompts": [
                {
                    "prompt": text,
                    "expert": own,
                    "shares": [round(float(value), 6) for value in mean],
                    "layers": [self._of_layer(layer) for layer in layers],
                }
                for (own, text), mean, layers in zip(
                    self.texts, self.means, self.shares, strict=True
                )
            ],
        }

    def _of_layer(self, shares: "NDArray[np.float64]") -> Mapping[str, Any]:
        """The moe_experts of the largest shares in one layer, (experts,), and all shares."""
        order = (-shares).argsort(kind="stable")[: self.experts_per_token]
        return {
            "first": [int(each) for each in order],
            "shares": [round(float(value), 6) for value in shares],
        }


def _show(console: "Console", report: Report, measured: Measured) -> None:
    layers, experts = len(measured.gates), len(report.models)
    say(console, f"gates by {measured.mode}: {layers} layers, {experts} moe_experts")
    rows = [
        (
            " ".join(text.split())[:60],
            report.labels[own],
            f"{100 * mean[own]:.0f} %",
            report.labels[int(mean.argmax())],
            f"{100 * mean.max():.0f} %",
        )
        for (own, text), mean in zip(report.texts, report.means, strict=True)
    ]
    columns = ("prompt", "written for", "its share", "goes most to", "share")
    title = f"where prompts go, {report.experts_per_token} a token, mean over layers"
    print_table(console, title, columns, rows[:MOST_ROWS])
    if len(rows) > MOST_ROWS:
        say(console, f"and {len(rows) - MOST_ROWS} more prompts; --json has all")
    own = sum(int(mean.argmax()) == number for (number, _), mean in _pairs(report))
    say(console, f"{own} of {len(rows)} prompts go most to the expert they were written for")
    say(console, ESTIMATE)


def _pairs(report: Report) -> "list[tuple[tuple[int, str], NDArray[np.float64]]]":
    return list(zip(report.texts, report.means, strict=True))


def _write_picture(path: Path, report: Report) -> None:
    from eval_ops.plots import routing_plot

    texts = [text for _, text in report.texts]
    write_png(path, routing_plot(texts, report.labels, report.means.tolist()))


def write_png(path: Path, drawn: bytes) -> None:
    """Write a picture that was asked for. Raises OutputError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn)
    except OSError as error:
        raise OutputError(f"{path}: the picture cannot be written ({error.strerror})") from error


def check_place(command: str, option: str, path: Path | None) -> None:
    """Raise SettingsError, before minutes of work, where a folder has the name of a file."""
    if path is not None and path.is_dir():
        problem = f"is {path}, which is a folder; name a file"
        raise SettingsError(command, [Fault(option, problem)])


def _errors() -> "Console":
    from orchestration.commands.console import PlainConsole

    return PlainConsole(stderr=True)
