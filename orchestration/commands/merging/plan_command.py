"""`ronghe plan`: what merging one mergekit-style file would do, without Dagster or a store."""

from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.table import Table

from merge_ops.calibration.texts import read_texts
from merge_ops.errors import Fault, RecipeError, shown
from merge_ops.plans import Plan, plan_steps
from merge_ops.plans.plan import GRADIENTS
from merge_ops.recipes import Steps, load_steps
from orchestration.commands.cautions import cautions_of, refuse_cautions, show_cautions
from orchestration.commands.console import PlainConsole, print_json, say
from orchestration.commands.merging.plan_tables import parameter_table, window_lines
from orchestration.commands.merging.run_places import KnownPlaces
from orchestration.commands.models.local_models import Download, open_models

MOST_NAMED = 20  # of the tensors that are left out for one reason; --json has all


def show_plan(
    config: Path,
    as_json: bool,
    strict: bool = False,
    verify: bool = False,
    follow_links: bool = False,
) -> None:
    """Print a plan, as tables or as JSON; `strict` makes its warnings errors."""
    steps = concrete_steps(config)
    models = steps.referenced_models
    opened = open_models(str(config), models, download=Download.NEVER, follow_links=follow_links)
    plans = plan_steps(steps, opened).plans
    if strict:
        refuse_cautions(str(config), cautions_of(plans))
    if verify:
        from orchestration.commands.merging.output_checks import OutputChecks

        with OutputChecks(PlainConsole(stderr=True), plans[-1], strict, verify) as checks:
            checks.look_at_plan(wait=True)
    console = PlainConsole()
    if as_json:
        from merge_ops.plans.plan_json import plan_json

        *earlier, result = [plan_json(plan) for plan in plans]
        document = {**result, "earlier_steps": earlier} if earlier else result
        print_json(document)
    else:
        for plan in plans:
            _print_plan(console, plan)


def _print_plan(console: Console, plan: Plan) -> None:
    say(console, f"{plan.recipe.name}: {plan.method.name}")
    head = Table()
    for column in ("role", "model", "tensors", "bytes"):
        head.add_column(column, justify="right" if column in ("tensors", "bytes") else "left")
    for each in plan.checkpoints:
        cells = (plan.role_of(each), each.name, f"{len(each.tensors):,}", f"{each.nbytes:,}")
        head.add_row(*map(shown, cells))
    console.print(head)
    first = ""
    if len(plan.coefficients) > 1:
        first = f" (coefficient {plan.coefficients[0].id}, the first of {len(plan.coefficients)})"
    say(console, f"tensors by their parameters{first}")
    console.print(parameter_table(plan))
    for why, names in _by_reason(plan.excluded).items():
        listed = ", ".join(names[:MOST_NAMED])
        rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
        say(console, f"not written: {listed}{rest} ({why})")
    if plan.tokenizer and plan.tokenizer.summary:
        say(console, plan.tokenizer.summary)
    if plan.recipe.has_gradient:
        say(console, GRADIENTS)
    if plan.recipe.moe and plan.recipe.moe.needs_prompts:
        mode = plan.recipe.moe.gate_mode
        say(console, f"gates: to be measured from the prompts ({mode}), which `ronghe merge` does")
    if plan.recipe.fewer and plan.recipe.fewer.measures:
        say(console, "moe: which moe_experts stay is measured on the texts by `ronghe merge`")
    if plan.recipe.calibrates:
        say(console, "router: its rows are fitted on the texts by `ronghe merge`")
    show_cautions(console, plan.cautions)
    for line in window_lines(plan):
        say(console, line)
    say(console, f"coefficients: {', '.join(each.id for each in plan.coefficients)}")
    count = len(plan.coefficients)
    written = plan.bytes_written // count
    cost = (
        f"reads {plan.bytes_read:,} bytes, writes {written:,} bytes in {len(plan.shards)} file(s)"
    )
    if count > 1:
        cost += f" for each coefficient, {plan.bytes_written:,} bytes for all {count}"
    say(console, cost)


def _by_reason(excluded: Mapping[str, str]) -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, why in excluded.items():
        names.setdefault(why, []).append(name)
    return names


def concrete_steps(config: Path) -> Steps:
    """The steps of a file that lists its models. Raises RecipeError for one that names sets."""
    steps = load_steps(config)
    if any(recipe.experts for recipe in steps.recipes):
        problem = (
            "names sets of a catalog, which only the catalog's assets can resolve; list `models`"
            " here, or run `ronghe refresh`"
        )
        raise RecipeError(steps.result.subject, [Fault("experts", problem)])
    return steps.with_windows(KnownPlaces()).with_texts(lambda file: read_texts(Path(file)))
