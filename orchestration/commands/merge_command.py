"""`ronghe merge` and `ronghe plan`: one mergekit-style file, without Dagster or a store."""

import gc
import json
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from merge_ops.checkpoints.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.checkpoint import Checkpoint, open_checkpoint
from merge_ops.errors import Fault, RecipeError
from merge_ops.plans.plan import GRADIENTS, Plan
from merge_ops.plans.plan_json import plan_json
from merge_ops.plans.stage_plans import plan_stages, run_stages
from merge_ops.recipes.stages import Stages, load_stages
from merge_ops.stream.device import arithmetic_kind
from merge_ops.stream.settings import StreamSettings
from merge_ops.stream.stream import can_do_without_torch
from orchestration.commands.emr_command import check_masks_wanted, write_masks_into
from orchestration.commands.extras import require
from orchestration.commands.local_models import content_digest, folders_of, open_models, readable
from orchestration.commands.output_folder import check_output, staged
from orchestration.sizes import parse_size

if TYPE_CHECKING:
    from merge_ops.jobs.assembly import MergeReport


def show_plan(config: Path, as_json: bool) -> None:
    """Print a plan, as tables or as JSON."""
    stages = _concrete(load_stages(config))
    plans = plan_stages(stages, open_models(str(config), stages.referenced_models))
    console = Console()
    if as_json:
        *earlier, result = [plan_json(plan) for plan in plans]
        document = {**result, "stages": earlier} if earlier else result
        console.print_json(json.dumps(document, ensure_ascii=False))
    else:
        for plan in plans:
            _print_plan(console, plan)


def _concrete(stages: Stages) -> Stages:
    if any(recipe.experts for recipe in stages.recipes):
        problem = (
            "names sets of a catalog, which only the catalog's assets can resolve; list `models`"
            " here, or run `ronghe refresh`"
        )
        raise RecipeError(stages.result.subject, [Fault("experts", problem)])
    return stages


def _print_plan(console: Console, plan: Plan) -> None:
    head = Table(title=f"{plan.recipe.name}: {plan.method.name}", title_justify="left")
    for column in ("role", "model", "tensors", "bytes"):
        head.add_column(column, justify="right" if column in ("tensors", "bytes") else "left")
    for each in plan.checkpoints:
        role = "base" if each is plan.base else "expert"
        head.add_row(role, each.name, f"{len(each.tensors):,}", f"{each.nbytes:,}")
    console.print(head)
    groups: dict[str, list[str]] = {}
    for step in plan.steps:
        what = str(step.parameters[0]) if step.parameters else step.action
        groups.setdefault(what, []).append(step.output.name)
    body = Table(title="tensors by their parameters (first coefficient)", title_justify="left")
    body.add_column("parameters", overflow="fold")
    body.add_column("tensors", justify="right")
    body.add_column("for example", overflow="fold")
    for what, names in groups.items():
        body.add_row(what, str(len(names)), names[0])
    console.print(body)
    for name, why in plan.excluded.items():
        console.print(f"not written: {name} ({why})")
    if plan.tokenizer and plan.tokenizer.vocabulary:
        console.print(plan.tokenizer.vocabulary.summary)
    if plan.recipe.has_gradient:
        console.print(GRADIENTS)
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")
    points = ", ".join(each.id for each in plan.coefficients)
    console.print(f"coefficients: {points}")
    console.print(
        f"reads {plan.bytes_read:,} bytes, writes {plan.bytes_written:,} bytes in"
        f" {len(plan.shards)} file(s) for each coefficient"
    )


@dataclass(frozen=True)
class MergeOptions:
    """The options of `ronghe merge`, as they were typed."""

    threads: int
    device: str
    memory: str
    shard_size: str
    block: int | None = None
    masks: Path | None = None


def run_merge(config: Path, out: Path, options: MergeOptions) -> None:
    """Merge one file into `out`; what is there is either a whole result or nothing."""
    limit = parse_size("--memory", options.memory)
    shard_bytes = parse_size("--shard-size", options.shard_size)
    stages = _concrete(load_stages(config))
    opened = open_models(str(config), stages.referenced_models)
    # All faults of headers, before anything heavy is imported:
    plans = plan_stages(stages, opened, shard_bytes)
    check_output(out)
    if options.masks is not None:
        check_masks_wanted(plans[-1], options.masks, out)
    needs_torch = not all(can_do_without_torch(each, options.device) for each in plans)
    if needs_torch:
        require("torch")
    with ThreadPoolExecutor(2) as pool:
        folders = {folder for name in opened for folder in folders_of(name)}
        pending = {each: pool.submit(content_digest, readable(each)) for each in sorted(folders)}
        if needs_torch:
            pool.submit(_import_torch).result()
        digests = {name: future.result() for name, future in pending.items()}
    opened = open_models(str(config), stages.referenced_models, digests)
    settings = StreamSettings(options.threads, options.device, limit, options.block)
    console = Console(stderr=True)
    with (
        staged(out) as stage,
        TemporaryDirectory(prefix=f".{out.name}.", suffix=".stages", dir=stage.parent) as between,
    ):

        def make(plan: Plan) -> Checkpoint:
            folder = Path(between) / plan.recipe.name
            _merge(console, plan, {"default": folder}, settings)
            return open_checkpoint(plan.recipe.name, FolderSource(folder), plan.outputs[0].digest)

        plan = run_stages(stages, opened, make, shard_bytes, arithmetic_kind(options.device))
        folders = {
            each.id: stage / each.id if plan.recipe.sweep else stage for each in plan.coefficients
        }
        report = _merge(console, plan, folders, settings)
        if options.masks is not None:
            write_masks_into(console, plan, options.masks)
    console.print(
        f"{len(folders)} checkpoint(s) in {out}: {report.bytes_written / 1e6:,.1f} MB written in"
        f" {report.seconds:.1f} s ({report.megabytes_per_second:,.0f} MB/s read and written)"
    )


def _merge(
    console: Console, plan: Plan, folders: Mapping[str, Path], settings: StreamSettings
) -> "MergeReport":
    """One merge into folders, with a progress bar."""
    from merge_ops.jobs.assembly import merge

    sinks = {key: FolderSink(folder) for key, folder in folders.items()}
    with _progress(console, plan) as advance:
        return merge(plan, sinks, settings, advance)


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
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    bar = Progress(
        "{task.description}",
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task(f"{plan.recipe.name}: {plan.method.name}", total=plan.bytes_read)
        yield lambda done, total: bar.update(task, completed=done, total=total)
