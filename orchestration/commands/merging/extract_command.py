"""`ronghe extract-lora`: a LoRA adapter from a fine-tuned model and its base."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from merge_ops.checkpoints import FolderSink
from merge_ops.errors import shown
from merge_ops.jobs.extraction_plan import ExtractionSettings, plan_extraction
from merge_ops.jobs.lora_extraction import ExtractionReport, extract
from merge_ops.stream import torch_threads
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.models.input_digests import check_unchanged, prove_models
from orchestration.commands.models.local_models import open_models
from orchestration.commands.models.output_folder import check_output, staged
from orchestration.settings import how_to_compute


def run_extraction(
    tuned: str,
    base: str,
    out: Path,
    settings: ExtractionSettings,
    follow_links: bool = False,
    as_json: bool = False,
) -> None:
    """Write an adapter into `out`, all of it or nothing, and print how near it comes."""
    how = how_to_compute("ronghe extract-lora")
    opened = open_models("ronghe extract-lora", [base, tuned], follow_links=follow_links)
    check_output(out)
    digests = prove_models(opened.values())
    plan = plan_extraction(opened[base], opened[tuned], settings, digests)
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with staged(out) as stage, bar, torch_threads(how.threads):
        task = bar.add_task("decomposing", total=len(plan.ranks))
        sink = FolderSink(stage)
        report = extract(plan, sink, lambda done, _: bar.update(task, completed=done))
        check_unchanged(digests)
    if as_json:
        print_json({"out": str(out), **report.to_json()})
        return
    _print_report(PlainConsole(), report)


def _print_report(console: Console, report: ExtractionReport) -> None:
    table = Table(title="what the adapter keeps of each matrix", title_justify="left")
    for column in ("matrix", "rank", "norm", "relative error"):
        table.add_column(column, justify="left" if column == "matrix" else "right", overflow="fold")
    for each in report.matrices:
        numbers = (str(each.rank), f"{each.norm:.4g}", f"{each.relative_error:.2e}")
        table.add_row(shown(each.name), *numbers)
    console.print(table)
    for name in report.whole:
        console.print(f"kept whole: {name}", soft_wrap=True)
    for name in report.left_out:
        console.print(f"left out, so it stays as in the base: {name}", soft_wrap=True)
    console.print(f"relative error over all matrices: {report.relative_error:.2e}")
