"""Makes the quickstart's upstream: four model folders and the items of three benchmarks.

Nothing here loads torch; the child processes that train do, and only when there is work.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from examples.quickstart.folders import exclusive, read_record, write_if_changed
from examples.quickstart.items import benchmark_items, to_lines
from examples.quickstart.recipe import BASE, Lesson, Recipe, fingerprint
from examples.quickstart.skills import quickstart_skills
from examples.quickstart.workers import Step, Workers
from merge_ops.kernels.cores import usable_cores

QUICKSTART = Recipe()
EXPERTS = tuple(QUICKSTART.experts)
THREADS = 1
WORKERS = min(len(EXPERTS), usable_cores())

Bar = Callable[[str, int], Step]
"""Makes a progress bar of so many steps for a model; what it returns is called at each step."""


@dataclass(frozen=True)
class Trained:
    """A model that was trained just now; `revision` counts its updates."""

    model: str
    revision: int
    seconds: float


def prepare(
    root: Path,
    update: str | None = None,
    *,
    force: bool = False,
    threads: int = THREADS,
    workers: int = WORKERS,
    recipe: Recipe = QUICKSTART,
    console: Console | None = None,
) -> list[Trained]:
    """Write `root`/upstream/<model>/ and `root`/suites/<benchmark>.jsonl where they are not yet.

    `update` names one expert to train once more with other data order and more steps, as an
    upstream team would release it: its weights change, the others stay. `force` trains all models
    as if for the first time. The weights depend on the recipe and on `threads` (for each model),
    not on `workers`, the number of models trained at a time.

    Returns what was trained, models that were ready left out. Raises ValueError when `update` is
    no expert, RuntimeError when a training process fails.
    """
    if update is not None and update not in recipe.experts:
        raise ValueError(
            f"update is '{update}'; it must be one of the experts {', '.join(recipe.experts)}"
        )
    skills = quickstart_skills()
    for skill in skills:
        file = root / "suites" / f"{skill.benchmark}.jsonl"
        write_if_changed(file, to_lines(benchmark_items(skill)))
    upstream = root / "upstream"
    digest = fingerprint(recipe, skills, threads)
    with exclusive(upstream):
        wanted = _wanted(upstream, [BASE, *recipe.experts], digest, force)
        if update is not None:
            wanted[update] = 1 + (0 if force else _revision(upstream / update))
        return _train(wanted, upstream, digest, recipe, threads, workers, console)


def _wanted(upstream: Path, models: Sequence[str], digest: str, force: bool) -> dict[str, int]:
    """Return the models to train, each with its revision."""
    if force:
        return dict.fromkeys(models, 0)
    records = {model: read_record(upstream / model) for model in models}
    return {
        model: _revision(upstream / model)
        for model, record in records.items()
        if record is None or record.fingerprint != digest
    }


def _revision(folder: Path) -> int:
    record = read_record(folder)
    return record.revision if record else 0


def _train(
    wanted: dict[str, int],
    upstream: Path,
    digest: str,
    recipe: Recipe,
    threads: int,
    workers: int,
    console: Console | None,
) -> list[Trained]:
    """Train the base model first, if it is wanted, then the experts side by side."""
    if not wanted:
        return []
    steps = {model: recipe.schedule(model, revision).steps for model, revision in wanted.items()}
    experts = sorted((model for model in wanted if model != BASE), key=lambda m: -steps[m])
    seconds: dict[str, float] = {}
    with Workers(min(workers, max(1, len(experts)))) as pool, _bars(console) as bar:
        for group in ([BASE] if BASE in wanted else [], experts):
            lessons = [
                Lesson(model, wanted[model], upstream, recipe, threads, digest) for model in group
            ]
            took = pool.run(lessons, [bar(model, steps[model]) for model in group])
            seconds.update(zip(group, took, strict=True))
    return [Trained(model, wanted[model], seconds[model]) for model in seconds]


@contextmanager
def _bars(console: Console | None) -> Iterator[Bar]:
    columns = (
        TextColumn("train {task.description:<12}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:

        def bar(model: str, steps: int) -> Step:
            task = progress.add_task(model, total=steps, start=False)

            def step() -> None:
                progress.start_task(task)
                progress.advance(task)

            return step

        yield bar
