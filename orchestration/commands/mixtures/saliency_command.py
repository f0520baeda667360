"""`ronghe moe-saliency`: what each moe_expert of a mixture does on calibration texts."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work.measuring.model_child import Base
from assets.work.measuring.moe_measuring import moe_statistics_of
from merge_ops.calibration.moe_statistics import MoeStatistics, write_moe_statistics
from merge_ops.calibration.texts import read_texts
from merge_ops.errors import ChangedInputError, Fault, SettingsError
from orchestration.commands.console import PlainConsole, print_json, progress_bar, say
from orchestration.commands.extras import require
from orchestration.commands.mixtures.gates_command import check_place, running_on, write_png
from orchestration.commands.models.input_digests import content_digest
from orchestration.commands.models.local_models import find_places, folders_of, path_of
from orchestration.commands.store_tables import make_list_console, print_table
from orchestration.settings import how_to_compute

if TYPE_CHECKING:
    from rich.console import Console

COMMAND = "ronghe moe-saliency"


@dataclass(frozen=True)
class SaliencyOptions:
    """What `ronghe moe-saliency` was asked for, beside the model and the texts."""

    out: Path | None = None
    picture: Path | None = None
    device: str | None = None
    threads: str | None = None
    as_json: bool = False


def run_saliency(reference: str, texts: Path, options: SaliencyOptions) -> None:
    """Measure the moe_experts of a mixture, show a line a layer, and write what is asked for."""
    for module in ("torch", "transformers"):
        require(module)
    for option, path in (("--out", options.out), ("--picture", options.picture)):
        check_place(COMMAND, option, path)
    read = read_texts(texts)
    how = how_to_compute(COMMAND, options.threads, options.device)
    model = _mixture(reference)
    bar = progress_bar(PlainConsole(stderr=True))
    with bar:
        task = bar.add_task(f"measuring the moe_experts of {model.called}", total=None)
        found, memoized = moe_statistics_of(
            model,
            read,
            running_on(how.device, how.threads),
            lambda done, whole: bar.update(task, completed=done, total=whole),
        )
    if content_digest(model.folder) != model.digest:
        problem = f"{model.called} changed while it was measured; wait until whatever writes it is"
        raise ChangedInputError(f"{problem} done, and run again")
    if options.out is not None:
        write_moe_statistics(options.out, found)
    if options.picture is not None:
        _write_picture(options.picture, found)
    if options.as_json:
        print_json(_plain(found))
        return
    console = make_list_console()
    if memoized:
        say(console, f"{model.called} was measured on these texts before")
    _show(console, found, len(read))
    for what, path in (("statistics", options.out), ("picture", options.picture)):
        if path is not None:
            say(console, f"{what}: {path}")


def _mixture(reference: str) -> Base:
    """The model, downloaded where it is not here, with its digest."""
    if len(folders_of(reference)) > 1:
        problem = f"is '{reference}', an adapter on a base; merge the two first and name the result"
        raise SettingsError(COMMAND, [Fault("MODEL", problem)])
    (place,) = find_places(COMMAND, [reference]).values()
    folder = path_of(place)
    if not folder.is_dir():
        problem = f"is the file {folder}; a folder with a config and a tokenizer is needed"
        raise SettingsError(COMMAND, [Fault("MODEL", problem)])
    return Base(folder, reference, content_digest(folder))


def _plain(found: MoeStatistics) -> dict[str, Any]:
    return {
        "model": found.model,
        "key": found.key,
        "tokens": found.total,
        "experts_per_token": found.chosen,
        "layers": [
            {
                "layer": layer,
                "tokens": [int(each) for each in each_layer.tokens],
                "weights": each_layer.weights.tolist(),
                "saliency": each_layer.saliency.tolist(),
            }
            for layer, each_layer in found.layers.items()
        ],
    }


def _show(console: "Console", found: MoeStatistics, texts: int) -> None:
    say(
        console,
        f"{len(found.layers)} layers of {found.experts} moe_experts, {found.chosen} a token;"
        f" {found.total:,} tokens of {texts:,} texts",
    )
    rows: list[tuple[str, ...]] = []
    for layer, each in found.layers.items():
        used, least, most = (
            int(each.tokens.argmax()), int(each.saliency.argmin()), int(each.saliency.argmax())
        )  # fmt: skip
        rows.append(
            (
                str(layer),
                f"{used} ({100 * each.tokens[used] / found.total:.0f} %)",
                str(int((each.tokens == 0).sum())),
                f"{most} ({each.saliency[most]:.3g})",
                f"{least} ({each.saliency[least]:.3g})",
            )
        )
    columns = ("layer", "most used (of tokens)", "never used", "most salient", "least salient")
    print_table(console, "moe_experts by layer", columns, rows)


def _write_picture(path: Path, found: MoeStatistics) -> None:
    from eval_ops.plots import saliency_plot

    values = [each.saliency.tolist() for each in found.layers.values()]
    write_png(path, saliency_plot(list(found.layers), values))
