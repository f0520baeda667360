"""`ronghe merge`: one mergekit-style file, without Dagster or a store."""

import gc
import itertools
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from merge_ops.checkpoints import Checkpoint, FolderSink, FolderSource
from merge_ops.plans import Plan, StepPlans, plan_steps
from merge_ops.stream import StreamSettings, arithmetic_kind, can_do_without_torch, check_settings
from orchestration.commands.cautions import cautions_of, refuse_cautions, show_cautions
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.extras import require
from orchestration.commands.merging.output_checks import OutputChecks
from orchestration.commands.merging.plan_command import concrete_steps
from orchestration.commands.mixtures.measured_numbers import MeasuredNumbers
from orchestration.commands.models.input_digests import check_unchanged, places_of, prove_models
from orchestration.commands.models.local_models import (
    Download,
    fetch_models,
    open_models,
)
from orchestration.commands.models.output_folder import beside, check_output, check_space, staged
from orchestration.options import read, size, whole
from orchestration.settings import how_to_compute

if TYPE_CHECKING:
    from merge_ops.jobs.assembly import MergeReport


COMMAND = "ronghe merge"
MOST_SEED = (1 << 63) - 1


@dataclass(frozen=True)
class MergeOptions:
    """The options of `ronghe merge`, as they were typed; None is what the environment says."""

    threads: str | None
    device: str | None
    memory: str | None
    shard_size: str
    block: int | None = None
    masks: Path | None = None
    force: bool = False
    seed: str | None = None
    strict: bool = False
    verify: bool = True
    follow_links: bool = False
    as_json: bool = False


def run_merge(config: Path, out: Path, options: MergeOptions) -> None:
    """Merge one file into `out`; what is there is either a whole result or nothing."""
    how = how_to_compute(COMMAND, options.threads, options.device, options.memory)
    shard_bytes = read(COMMAND, "--shard-size", options.shard_size, size)
    seed = None
    if options.seed is not None:
        seed = read(COMMAND, "--seed", options.seed, lambda text: whole(text, 0, MOST_SEED))
    steps = concrete_steps(config).with_seed(seed)
    # All faults of headers, before anything heavy is imported or hashed:
    with _lasting_objects():
        opened = open_models(
            str(config),
            steps.referenced_models,
            download=Download.LATER,
            follow_links=options.follow_links,
        )
        planned = plan_steps(steps, opened, shard_bytes, arithmetic_kind(how.device))
    inputs = [path for model in opened.values() for _, path in places_of(model)]
    settings = StreamSettings(how.threads, how.device, how.memory, options.block)
    for plan in planned.plans:
        check_settings(plan, settings)
    check_output(out, options.force, [config, *inputs])
    check_space(out, sum(plan.bytes_written for plan in planned.plans))
    if options.masks is not None:
        from orchestration.commands.merging.emr_command import check_masks_wanted

        check_masks_wanted(planned.result, options.masks, out)
    console = PlainConsole(stderr=True)
    cautions = cautions_of(planned.plans)
    if options.strict:
        refuse_cautions(str(config), cautions)
    show_cautions(console, cautions)
    fetch_models(opened)
    if any(recipe.measures for recipe in steps.recipes):
        with beside(out) as place:
            numbers = MeasuredNumbers(console, steps, opened, how, place)
            planned = _with_numbers(numbers, shard_bytes, options.strict)
    with OutputChecks(console, planned.result, options.strict, options.verify) as checks:
        plans = _with_digests(planned, opened, how.device)
        _write(console, out, plans, settings, options, checks)


def _with_numbers(numbers: MeasuredNumbers, shard_bytes: int, strict: bool) -> StepPlans:
    """The plans with gates of mixtures, statistics of moe_experts and routers, as measured."""
    with _lasting_objects():
        numbers.measure()
    kind = arithmetic_kind(numbers.how.device)
    measured = numbers.gates, numbers.statistics
    planned = plan_steps(numbers.steps, numbers.opened, shard_bytes, kind, *measured)
    told = ("gates", *(name for each in numbers.statistics for name in _smaller(planned, each)))
    found = [each for each in cautions_of(planned.plans) if each.where.startswith(told)]
    if strict:
        refuse_cautions("measured numbers", found)
    show_cautions(numbers.console, found)
    return planned


def _smaller(planned: StepPlans, recipe: str) -> Iterator[str]:
    """The model of a `moe:` step, of which cautions tell only once statistics are there."""
    for plan in planned.plans:
        if plan.recipe.name == recipe:
            yield plan.recipe.models[0].model


def _write(
    console: Console,
    out: Path,
    plans: StepPlans,
    settings: StreamSettings,
    options: MergeOptions,
    checks: OutputChecks,
) -> None:
    """Carry out all steps; what was written becomes `out` once it was looked at."""
    numbers = itertools.count()  # a document's name may hold anything, other folders too
    with staged(out, options.force) as staging:

        def make(plan: Plan) -> FolderSource:
            folder = staging.parent / "steps" / str(next(numbers))
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
        check_unchanged(plans.result.digests)
        if options.masks is not None:
            from orchestration.commands.merging.emr_command import write_masks_into

            write_masks_into(console, plan, options.masks)
    if options.as_json:
        print_json(_document(out, plans, report))
        return
    console.print(
        f"{len(folders)} checkpoint(s) in {out}: {report.bytes_written / 1e6:,.1f} MB written in"
        f" {report.seconds:.1f} s ({report.megabytes_per_second:,.0f} MB/s read and written)"
    )


def _document(out: Path, plans: StepPlans, report: "MergeReport") -> dict[str, Any]:
    """What was written, as plain data."""
    result = plans.result
    return {
        "recipe": result.recipe.name,
        "method": result.method.name,
        "checkpoints": [
            {
                "coefficient": each.coefficient,
                "folder": str(out / each.coefficient if result.recipe.sweep else out),
                "plan": each.digest,
            }
            for each in result.outputs
        ],
        "warnings": [str(each) for each in cautions_of(plans.plans)],
        "bytes_read": report.bytes_read,
        "bytes_written": report.bytes_written,
        "seconds": report.seconds,
    }


def _with_digests(planned: StepPlans, opened: Mapping[str, Checkpoint], device: str) -> StepPlans:
    """The plans with the content digests of all models, and torch imported where one needs it."""
    needs_torch = not all(can_do_without_torch(each, device) for each in planned.plans)
    if needs_torch:
        require("torch")
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(prove_models, opened.values())
        if needs_torch:
            _import_torch()
        return planned.with_digests(pending.result())


def _merge(
    console: Console,
    plan: Plan,
    folders: Mapping[str, Path],
    settings: StreamSettings,
    checks: OutputChecks,
) -> "MergeReport":
    """One merge into folders, with a progress bar; a check that failed ends it."""
    from assets.work.measuring.kept_orders import with_kept_orders
    from merge_ops.jobs.assembly import merge

    sinks = {key: FolderSink(folder) for key, folder in folders.items()}
    with _progress(console, plan) as advance, with_kept_orders(plan):

        def step(done: int, total: int) -> None:
            checks.look_at_plan(wait=False)
            advance(done, total)

        return merge(plan, sinks, settings, step)


def _import_torch() -> None:
    """What is imported while the inputs are hashed."""
    with _lasting_objects():
        import torch  # noqa: F401


@contextmanager
def _lasting_objects() -> Iterator[None]:
    """Leave what is made here out of the garbage collector's walks, for it stays to the end.

    Walking torch's 170,000 objects takes half a second of each run, most of it at exit; walking
    the headers and the plan of 100,000 tensors again and again takes a third of their merge.
    """
    gc.disable()
    try:
        yield
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
