"""`ronghe verify-merge`: is a checkpoint what a recipe gives, and is an adapter in it?"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from merge_ops.checkpoints import Checkpoint, FolderSource
from merge_ops.errors import Fault, SettingsError, shown
from merge_ops.plans import Plan, StepPlans, plan_steps
from merge_ops.stream import StreamSettings, arithmetic_kind, check_settings
from merge_ops.working_folders import working_folder
from orchestration.commands.console import PlainConsole, print_json, progress_bar, say
from orchestration.commands.looking.compared_models import open_compared
from orchestration.commands.merging.plan_command import concrete_steps
from orchestration.commands.models.input_digests import prove_models
from orchestration.commands.models.local_models import Download, fetch_models, open_models
from orchestration.settings import how_to_compute

if TYPE_CHECKING:
    from merge_ops.provenance.merge_check import MergeCheck

COMMAND = "ronghe verify-merge"
MOST_NAMED = 20


@dataclass(frozen=True)
class MergeClaim:
    """What a checkpoint is said to be: made by a recipe, or a base with an adapter in it."""

    recipe: Path | None
    base: str | None
    adapter: str | None


def run_verify_merge(
    checkpoint: str,
    claim: MergeClaim,
    as_json: bool,
    computing: tuple[str | None, str | None],
    follow_links: bool,
) -> None:
    """Print whether a claim holds. Exit status 1 where it does not.

    Raises SettingsError where it is not clear what is claimed, and what a merge raises.
    """
    how = how_to_compute(COMMAND, computing[0], "cpu", computing[1])
    settings = StreamSettings(how.threads, "cpu", how.memory)
    faults: list[Fault] = []
    if (claim.recipe is None) == (claim.adapter is None):
        faults.append(Fault("--recipe", "or --adapter with --base is needed, and not both"))
    elif (claim.adapter is None) != (claim.base is None):
        faults.append(Fault("--base", "and --adapter go together"))
    if faults:
        raise SettingsError(COMMAND, faults)
    opened = open_compared(COMMAND, [checkpoint], follow_links)[checkpoint]
    if claim.recipe is not None:
        passed = _verify_recipe(opened, claim.recipe, settings, as_json, follow_links)
    else:
        from orchestration.commands.looking.adapter_evidence import show_adapter_evidence

        passed = show_adapter_evidence(
            opened, str(claim.base), str(claim.adapter), settings, as_json, follow_links
        )
    if not passed:
        raise SystemExit(1)


def _verify_recipe(
    checkpoint: Checkpoint,
    recipe: Path,
    settings: StreamSettings,
    as_json: bool,
    follow_links: bool,
) -> bool:
    from merge_ops.provenance.merge_check import check_merge

    steps = concrete_steps(recipe)
    models = open_models(
        str(recipe), steps.referenced_models, download=Download.LATER, follow_links=follow_links
    )
    planned = plan_steps(steps, models, arithmetic=arithmetic_kind(settings.device))
    for plan in planned.plans:
        check_settings(plan, settings)
    fetch_models(models)
    plans = planned.with_digests(prove_models(models.values()))
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with working_folder() as work, bar:
        _merge_earlier(plans, work, settings)
        task = bar.add_task("merging in memory", total=None)
        checks = check_merge(
            plans.result,
            checkpoint,
            settings,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    best = checks[0]
    digest = next(
        each.digest for each in plans.result.outputs if each.coefficient == best.coefficient
    )
    if as_json:
        document = {"checkpoint": checkpoint.name, "plan": digest, **best.to_json()}
        others = {each.coefficient: each.verdict for each in checks[1:]}
        print_json({**document, "other_coefficients": others})
    else:
        _print(checkpoint, plans.result, digest, checks)
    return best.passed


def _merge_earlier(plans: StepPlans, work: Path, settings: StreamSettings) -> None:
    """Write the results of earlier steps, which the last one reads, to a folder that vanishes."""

    numbers = itertools.count()  # a document's name may hold anything, other folders too

    def make(plan: Plan) -> FolderSource:
        from merge_ops.jobs.assembly import merge

        folder = work / str(next(numbers))
        merge(plan, folder, settings)
        return FolderSource(folder)

    plans.merge_earlier(make)


def _print(
    checkpoint: Checkpoint, plan: Plan, digest: str | None, checks: "Sequence[MergeCheck]"
) -> None:
    from merge_ops.provenance.merge_check import VERDICTS

    console, best = PlainConsole(), checks[0]
    at = f" at {best.coefficient}" if len(checks) > 1 else ""
    say(console, f"{checkpoint.name} {VERDICTS[best.verdict]}{at}")
    say(console, f"recipe {plan.recipe.name} ({plan.method.name}), plan digest {digest}")
    off = [each for each in best.tensors if not each.same_bytes]
    if off:
        same = len(best.tensors) - len(off)
        say(console, f"{same} of {len(best.tensors)} tensors are as planned, byte for byte")
        console.print(_table(best))
        if len(off) > MOST_NAMED:
            say(console, f"and {len(off) - MOST_NAMED} more tensors; --json has all")
    for name in best.unplanned[:MOST_NAMED]:
        say(console, f"not given by the recipe: {name}")
    for told in best.files:
        say(console, f"beside the weights: {told}")


def _table(check: "MergeCheck") -> Table:
    table = Table()
    table.add_column("tensor", overflow="fold")
    table.add_column("is", overflow="fold")
    for name in ("entries", "relative", "largest", "last places"):
        table.add_column(name, justify="right")
    off = [each for each in check.tensors if not each.same_bytes]
    for each in sorted(off, key=lambda each: -each.relative)[:MOST_NAMED]:
        kind = each.status
        if each.planned != each.found:
            kind = f"{each.status} ({each.found}, planned {each.planned})"
        share = f"{each.differing / max(1, each.count):.0%}"
        units = "–" if each.units is None else str(each.units)
        numbers = (share, f"{each.relative:.3g}", f"{each.largest:.3g}", units)
        table.add_row(*map(shown, (each.name, kind, *numbers)))
    return table
