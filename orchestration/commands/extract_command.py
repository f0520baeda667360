"""`ronghe extract-lora`: a LoRA adapter from a fine-tuned model and its base."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from merge_ops.checkpoints import FolderSink
from merge_ops.errors import shown
from merge_ops.jobs.extraction_plan import ExtractionSettings, plan_extraction
from merge_ops.jobs.lora_extraction import ExtractionReport, extract
from orchestration.commands.console import PlainConsole, progress_bar, say
from orchestration.commands.local_models import open_models
from orchestration.commands.output_folder import check_output, staged


def run_extraction(tuned: str, base: str, out: Path, settings: ExtractionSettings) -> None:
    """Write an adapter into `out`, all of it or nothing, and print how near it comes."""
    opened = open_models("ronghe extract-lora", [base, tuned])
    check_output(out)
    plan = plan_extraction(opened[base], opened[tuned], settings)
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with staged(out) as stage, bar:
        task = bar.add_task("decomposing", total=len(plan.ranks))
        sink = FolderSink(stage)
        report = extract(plan, sink, lambda done, _: bar.update(task, completed=done))
    _print_report(PlainConsole(), report)


def _print_report(console: Console, report: ExtractionReport) -> None:
    table = Table(title="what the adapter keeps of each matrix", title_justify="left")
    for column in ("matrix", "rank", "norm", "relative error"):
        table.add_column(column, justify="left" if column == "matrix" else "right", overflow="fold")
    for each in report.matrices:
        table.add_row(
            shown(each.name), str(each.rank), f"{each.norm:.4g}", f"{each.relative_error:.2e}"
        )
    console.print(table)
    for name in report.whole:
        say(console, f"kept whole: {name}")
    for name in report.left_out:
        say(console, f"left out, so it stays as in the base: {name}")
    console.print(f"relative error over all matrices: {report.relative_error:.2e}")
