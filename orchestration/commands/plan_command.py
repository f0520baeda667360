"""`ronghe plan`: what merging one mergekit-style file would do, without Dagster or a store."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table

from merge_ops.errors import Fault, RecipeError
from merge_ops.plans import Plan, plan_steps
from merge_ops.plans.plan import GRADIENTS
from merge_ops.recipes import Steps, load_steps
from orchestration.commands.local_models import Download, open_models


def show_plan(config: Path, as_json: bool) -> None:
    """Print a plan, as tables or as JSON."""
    steps = concrete_steps(config)
    opened = open_models(str(config), steps.referenced_models, download=Download.NEVER)
    plans = plan_steps(steps, opened).plans
    console = Console()
    if as_json:
        from merge_ops.plans.plan_json import plan_json

        *earlier, result = [plan_json(plan) for plan in plans]
        document = {**result, "earlier_steps": earlier} if earlier else result
        console.print_json(json.dumps(document, ensure_ascii=False))
    else:
        for plan in plans:
            _print_plan(console, plan)


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
    for caution in plan.cautions:
        console.print(f"[yellow]warning:[/yellow] {caution}")
    points = ", ".join(each.id for each in plan.coefficients)
    console.print(f"coefficients: {points}")
    console.print(
        f"reads {plan.bytes_read:,} bytes, writes {plan.bytes_written:,} bytes in"
        f" {len(plan.shards)} file(s) for each coefficient"
    )


def concrete_steps(config: Path) -> Steps:
    """The steps of a file that lists its models. Raises RecipeError for one that names sets."""
    steps = load_steps(config)
    if any(recipe.experts for recipe in steps.recipes):
        problem = (
            "names sets of a catalog, which only the catalog's assets can resolve; list `models`"
            " here, or run `ronghe refresh`"
        )
        raise RecipeError(steps.result.subject, [Fault("experts", problem)])
    return steps
