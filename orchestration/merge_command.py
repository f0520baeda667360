"""`ronghe merge` and `ronghe plan`: one mergekit-style file, without Dagster or a store."""

import ctypes
import gc
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from merge_ops.checkpoint import FolderSink
from merge_ops.errors import Fault, RecipeError, SettingsError
from merge_ops.plan import Plan, plan_merge
from merge_ops.recipe import Recipe, load_recipe
from orchestration.local_models import folders_of, open_models, readable
from orchestration.output_folder import check_output, staged

_SIZE = re.compile(r"^\s*([0-9.]+)\s*(?:([KMG])i?)?B?\s*$", re.IGNORECASE)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def parse_size(text: str) -> int:
    """Bytes from `512MiB`, `2G` or `1000000`. Raises SettingsError saying what is allowed."""
    found = _SIZE.match(text)
    if not found:
        problem = f"is {text!r}; give a number of bytes such as 512MiB or 2GiB"
        raise SettingsError("ronghe merge", [Fault("--memory", problem)])
    return int(float(found.group(1)) * _UNITS[(found.group(2) or "").upper()])


def show_plan(config: Path, as_json: bool) -> None:
    """Print a plan, as tables or as JSON."""
    recipe = _concrete(load_recipe(config))
    plan = plan_merge(recipe, open_models(recipe))
    console = Console()
    if as_json:
        console.print_json(json.dumps(plan.to_json(), ensure_ascii=False))
    else:
        _print_plan(console, plan)


def _concrete(recipe: Recipe) -> Recipe:
    if recipe.experts:
        problem = (
            "names sets of a catalog, which only the catalog's assets can resolve; list `models`"
            " here, or run `ronghe refresh`"
        )
        raise RecipeError(recipe.subject, [Fault("experts", problem)])
    return recipe


def _print_plan(console: Console, plan: Plan) -> None:
    head = Table(title=f"{plan.recipe.name}: {plan.method.name}", title_justify="left")
    for column in ("role", "model", "tensors", "bytes"):
        head.add_column(column, justify="right" if column in ("tensors", "bytes") else "left")
    for each in plan.checkpoints:
        role = "base" if each is plan.base else "expert"
        head.add_row(role, each.name, f"{len(each.tensors):,}", f"{each.nbytes:,}")
    console.print(head)
    groups: dict[str, list[str]] = {}
    for tensor in plan.tensors:
        what = tensor.action if tensor.action == "copy" else str(tensor.parameters[0])
        groups.setdefault(what, []).append(tensor.output.name)
    body = Table(title="tensors by their parameters (first coefficient)", title_justify="left")
    body.add_column("parameters", overflow="fold")
    body.add_column("tensors", justify="right")
    body.add_column("for example", overflow="fold")
    for what, names in groups.items():
        body.add_row(what, str(len(names)), names[0])
    console.print(body)
    for name, why in plan.excluded.items():
        console.print(f"not written: {name} ({why})")
    for warning in plan.warnings:
        console.print(f"[yellow]warning:[/yellow] {warning}")
    points = ", ".join(each.id for each in plan.coefficients)
    console.print(f"coefficients: {points}")
    console.print(
        f"reads {plan.bytes_read:,} bytes, writes {plan.bytes_written:,} bytes in"
        f" {len(plan.shards)} file(s) for each coefficient"
    )


def run_merge(
    config: Path, out: Path, *, threads: int, device: str, memory: str, block: int | None
) -> None:
    """Merge one file into `out`; what is there is either a whole result or nothing."""
    limit = parse_size(memory)
    recipe = _concrete(load_recipe(config))
    opened = open_models(recipe)
    plan_merge(recipe, opened)  # all faults of headers, before anything heavy is imported
    check_output(out)
    _keep_freed_memory()
    with ThreadPoolExecutor(2) as pool:
        folders = {folder for name in opened for folder in folders_of(name)}
        pending = {each: pool.submit(_content_digest, readable(each)) for each in sorted(folders)}
        _import_in(pool).result()
        from merge_ops.assembly import merge
        from merge_ops.stream import StreamSettings

        digests = {name: future.result() for name, future in pending.items()}
    plan = plan_merge(recipe, open_models(recipe, digests))
    settings = StreamSettings(threads=threads, device=device, memory=limit, block=block)
    console = Console(stderr=True)
    with staged(out) as stage, _progress(console, plan) as advance:
        folders = {
            each.id: stage / each.id if recipe.sweep else stage for each in plan.coefficients
        }
        report = merge(
            plan, {key: FolderSink(folder) for key, folder in folders.items()}, settings, advance
        )
    console.print(
        f"{len(folders)} checkpoint(s) in {out}: {report.bytes_written / 1e6:,.1f} MB written in"
        f" {report.seconds:.1f} s ({report.megabytes_per_second:,.0f} MB/s read and written)"
    )


def _import_in(pool: ThreadPoolExecutor) -> "Future[None]":
    """torch is imported while the inputs are hashed.

    Its 170,000 objects stay to the end. Left to the garbage collector, walking them takes half a
    second of each run, most of it at exit.
    """

    def load() -> None:
        gc.disable()
        try:
            import torch  # noqa: F401
        finally:
            gc.freeze()
            gc.enable()

    return pool.submit(load)


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: a block's temporaries are the next block's.

    Left alone it gives megabytes back to the kernel and faults them in again, block after block,
    which took a seventh of the time of a merge by ties. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(M_MMAP_THRESHOLD, 32 << 20)
    mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _content_digest(folder: Path) -> str:
    from resources.model_sources import open_model_source

    return open_model_source(str(folder.absolute()), relative_to=Path.cwd()).revision()


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
        task = bar.add_task(f"{plan.method.name}", total=plan.bytes_read)
        yield lambda done, total: bar.update(task, completed=done, total=total)
