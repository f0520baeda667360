"""`ronghe merge`: one mergekit-style file, without Dagster or a store."""

import gc
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console

from merge_ops.checkpoints import Checkpoint, FolderSink, FolderSource
from merge_ops.plans import Plan, StepPlans, plan_steps
from merge_ops.stream import StreamSettings, arithmetic_kind, can_do_without_torch
from orchestration.commands.cautions import cautions_of, refuse_cautions, show_cautions
from orchestration.commands.console import PlainConsole, progress_bar
from orchestration.commands.extras import require
from orchestration.commands.local_models import (
    Download,
    content_digest,
    fetch_models,
    open_models,
    places_of,
)
from orchestration.commands.output_checks import OutputChecks
from orchestration.commands.output_folder import check_output, staged
from orchestration.commands.plan_command import concrete_steps
from orchestration.sizes import parse_size

if TYPE_CHECKING:
    from merge_ops.jobs.assembly import MergeReport


@dataclass(frozen=True)
class MergeOptions:
    """The options of `ronghe merge`, as they were typed."""

    threads: int
    device: str
    memory: str
    shard_size: str
    block: int | None = None
    masks: Path | None = None
    force: bool = False
    seed: int | None = None
    strict: bool = False
    verify: bool = True


def run_merge(config: Path, out: Path, options: MergeOptions) -> None:
    """Merge one file into `out`; what is there is either a whole result or nothing."""
    limit = parse_size("--memory", options.memory)
    shard_bytes = parse_size("--shard-size", options.shard_size)
    steps = concrete_steps(config).with_seed(options.seed)
    # All faults of headers, before anything heavy is imported or hashed:
    opened = open_models(str(config), steps.referenced_models, download=Download.LATER)
    planned = plan_steps(steps, opened, shard_bytes, arithmetic_kind(options.device))
    read = [path for model in opened.values() for _, path in places_of(model)]
    check_output(out, options.force, [config, *read])
    if options.masks is not None:
        from orchestration.commands.emr_command import check_masks_wanted

        check_masks_wanted(planned.result, options.masks, out)
    console = PlainConsole(stderr=True)
    cautions = cautions_of(planned.plans)
    if options.strict:
        refuse_cautions(str(config), cautions)
    show_cautions(console, cautions)
    settings = StreamSettings(options.threads, options.device, limit, options.block)
    fetch_models(opened)
    with OutputChecks(console, planned.result, options.strict, options.verify) as checks:
        plans = _with_digests(planned, opened, options.device)
        _write(console, out, plans, settings, options, checks)


def _write(
    console: Console,
    out: Path,
    plans: StepPlans,
    settings: StreamSettings,
    options: MergeOptions,
    checks: OutputChecks,
) -> None:
    """Carry out all steps; what was written becomes `out` once it was looked at."""
    with (
        staged(out, options.force) as staging,
        TemporaryDirectory(prefix=f".{out.name}.", suffix=".steps", dir=staging.parent) as between,
    ):

        def make(plan: Plan) -> FolderSource:
            folder = Path(between) / plan.recipe.name
            _merge(console, plan, {"default": folder}, settings, checks)
            return FolderSource(folder)

        plans.merge_earlier(make)
        plan = plans.result
        folders = {
            each.id: staging / each.id if plan.recipe.sweep else staging
            for each in plan.coefficients
        }
        report = _merge(console, plan, folders, settings, checks)
        checks.look_at_files(plan, folders.values())
        if options.masks is not None:
            from orchestration.commands.emr_command import write_masks_into

            write_masks_into(console, plan, options.masks)
    console.print(
        f"{len(folders)} checkpoint(s) in {out}: {report.bytes_written / 1e6:,.1f} MB written in"
        f" {report.seconds:.1f} s ({report.megabytes_per_second:,.0f} MB/s read and written)"
    )


def _with_digests(planned: StepPlans, opened: Mapping[str, Checkpoint], device: str) -> StepPlans:
    """The plans with the content digests of all models, and torch imported where one needs it."""
    needs_torch = not all(can_do_without_torch(each, device) for each in planned.plans)
    if needs_torch:
        require("torch")
    places = {place: path for model in opened.values() for place, path in places_of(model)}
    with ThreadPoolExecutor(2) as pool:
        pending = {path: pool.submit(content_digest, path) for path in sorted({*places.values()})}
        if needs_torch:
            pool.submit(_import_torch).result()
        digests = {place: pending[path].result() for place, path in places.items()}
    return planned.with_digests(digests)


def _merge(
    console: Console,
    plan: Plan,
    folders: Mapping[str, Path],
    settings: StreamSettings,
    checks: OutputChecks,
) -> "MergeReport":
    """One merge into folders, with a progress bar; a check that failed ends it."""
    from merge_ops.jobs.assembly import merge

    sinks = {key: FolderSink(folder) for key, folder in folders.items()}
    with _progress(console, plan) as advance:

        def step(done: int, total: int) -> None:
            checks.look_at_plan(wait=False)
            advance(done, total)

        return merge(plan, sinks, settings, step)


def _import_torch() -> None:
    """What is imported while the inputs are hashed.

    Its 170,000 objects stay to the end. Left to the garbage collector, walking them takes half a
    second of each run, most of it at exit.
    """
    gc.disable()
    try:
        import torch  # noqa: F401
    finally:
        gc.freeze()
        gc.enable()


@contextmanager
def _progress(console: Console, plan: Plan) -> Iterator[Callable[[int, int], None]]:
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = progress_bar(console, *columns)
    with bar:
        task = bar.add_task(f"{plan.recipe.name}: {plan.method.name}", total=plan.bytes_read)
        yield lambda done, total: bar.update(task, completed=done, total=total)
