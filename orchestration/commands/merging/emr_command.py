"""Masks of a merge by emr on the command line: `merge --masks` and `restore-expert`."""

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from merge_ops.checkpoints import FolderSink, FolderSource
from merge_ops.errors import Fault, SettingsError
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.models.input_digests import check_unchanged, prove_models
from orchestration.commands.models.local_models import open_models
from orchestration.commands.models.output_folder import check_output, staged

if TYPE_CHECKING:
    from merge_ops.plans import Plan


def check_masks_wanted(plan: "Plan", masks: Path, out: Path) -> None:
    """Raise SettingsError where a plan has no masks, OutputError where they cannot be written."""
    from merge_ops.jobs.emr_masks import masked_models

    problem = ""
    if masked_models(plan) is None:
        problem = f"is for method emr with `models`; {plan.recipe.subject} merges by"
        problem += f" {plan.method.name}"
    elif any(each.lambda_ != 1 for step in plan.steps for each in step.parameters):
        problem = "needs lambda 1 everywhere: experts are restored from the unscaled task vector"
    elif masks.absolute().is_relative_to(out.absolute()):
        problem = f"is {masks}, in the output {out}; name another folder"
    if problem:
        raise SettingsError("ronghe merge", [Fault("--masks", problem)])
    check_output(masks)


def write_masks_into(console: Console, plan: "Plan", masks: Path) -> None:
    """Write the masks of a merge, all of them or nothing; reads the inputs once more."""
    from merge_ops.jobs.emr_masks import masked_models, write_masks

    models = masked_models(plan)
    assert models is not None  # check_masks_wanted has been asked
    base, experts = models
    bar = progress_bar(console)
    with staged(masks) as stage, bar:
        task = bar.add_task("masks", total=None)
        scales = write_masks(
            base,
            experts,
            FolderSink(stage),
            lambda done, whole: bar.update(task, completed=done, total=whole),
        )
    for expert, scale in zip(experts, scales, strict=True):
        console.print(f"scale of {expert.name}: {scale:.6g}", soft_wrap=True)


def run_restoration(
    expert: str, out: Path, merged: str, base: str, masks: Path, as_json: bool = False
) -> None:
    """Write one expert's approximation into `out`, all of it or nothing."""
    from merge_ops.jobs.emr_masks import open_masks, restore

    opened = open_models("ronghe restore-expert", [base, merged])
    mask_source = FolderSource(masks)
    mask_file = open_masks(mask_source)
    check_output(out)
    digests = prove_models(opened.values())
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with staged(out) as stage, bar:
        task = bar.add_task("restoring", total=None)
        restore(
            opened[base],
            opened[merged],
            mask_file,
            _name_in(mask_file.experts, expert),
            FolderSink(stage),
            lambda done, whole: bar.update(task, completed=done, total=whole),
        )
        check_unchanged([*digests, mask_source])
    if as_json:
        print_json({"expert": _name_in(mask_file.experts, expert), "out": str(out)})
        return
    console.print(f"{expert} in {out}, as far as emr keeps it", soft_wrap=True)


def _name_in(experts: tuple[str, ...], expert: str) -> str:
    """The expert's name in the mask file: as given, or the one folder that is called so."""
    called = [each for each in experts if Path(each).name == Path(expert).name]
    return called[0] if expert not in experts and len(called) == 1 else expert
