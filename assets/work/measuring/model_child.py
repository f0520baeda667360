"""What is asked of the limited child that runs one model, and how that is run. Knows no Dagster."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from assets.work.measuring.asking_child import TOKENIZER_SECONDS, ask_child

if TYPE_CHECKING:
    from merge_ops.progress import Progress


@dataclass(frozen=True)
class Base:
    """A base is the folder whose model is run, what messages call it, and its content's digest."""

    folder: Path
    called: str
    digest: str


@dataclass(frozen=True)
class Running:
    """How a base is run: on a device (`cpu`, `cuda[:n]`), by so many threads.

    With 0 threads it has one for each core that this process may use.
    """

    device: str = "cpu"
    threads: int = 0


def ask_model(
    module: str,
    base: Base,
    request: Mapping[str, Any],
    running: Running,
    doing: str,
    way_out: str,
    progress: "Progress | None" = None,
) -> dict[str, Any]:
    """Return what `module` answers of the model of `base`.

    `doing` and `way_out` are words of faults. What the child tells on the way goes to `progress`.
    Raises EvalError.
    """
    from merge_ops.stream import usable_cores

    def tell(told: object) -> None:
        if progress is not None and isinstance(told, list):
            progress(*told)

    how = {
        "device": running.device,
        "threads": running.threads or usable_cores(),
        "tokenizer_seconds": TOKENIZER_SECONDS,
    }
    return ask_child(
        module,
        base.folder,
        {**request, **how},
        doing,
        cuda=running.device != "cpu",
        tell=tell,
        shown=base.called,
        way_out=way_out,
    )
