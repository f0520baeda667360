"""`ronghe merge-adapters`: a mergekit-style file of adapters, averaged into an adapter."""

from pathlib import Path

from merge_ops.checkpoints import FolderSink, FolderSource
from merge_ops.errors import (
    CheckpointError,
    CompatibilityError,
    Fault,
    FaultsError,
    RecipeError,
)
from merge_ops.jobs.adapter_agreement import recipe_faults
from merge_ops.jobs.adapter_average import plan_average, write_average
from merge_ops.recipes import Recipe, load_steps
from merge_ops.sources import Adapter, read_adapter
from merge_ops.stream import torch_threads
from orchestration.commands.console import PlainConsole, print_json, progress_bar
from orchestration.commands.models.input_digests import check_unchanged, hash_model
from orchestration.commands.models.local_models import (
    find_places,
    folders_of,
    path_of,
)
from orchestration.commands.models.output_folder import check_output, check_space, staged
from orchestration.commands.models.readable_models import folder_of_adapter, readable
from orchestration.settings import how_to_compute


def run_adapter_average(
    config: Path,
    out: Path,
    factor_wise: bool,
    follow_links: bool = False,
    as_json: bool = False,
) -> None:
    """Write the averaged adapter into `out`, all of it or nothing."""
    how = how_to_compute("ronghe merge-adapters")
    recipe = _recipe(config)
    adapters = _read_all(recipe, follow_links)
    plan = plan_average(recipe, adapters, factor_wise)
    check_output(out)
    check_space(out, plan.nbytes)
    console = PlainConsole(stderr=True)
    bar = progress_bar(console)
    with staged(out) as stage, bar, torch_threads(how.threads):
        task = bar.add_task("averaging", total=len(plan.tensors))
        write_average(plan, FolderSink(stage), lambda done, _: bar.update(task, completed=done))
        check_unchanged(each.checkpoint.source for each in adapters)
    if as_json:
        print_json({"out": str(out), "ranks": dict(plan.ranks), "bytes": plan.nbytes})
        return
    ranks = sorted(set(plan.ranks.values()))
    told = str(ranks[0]) if len(ranks) == 1 else f"{ranks[0]} to {ranks[-1]}"
    console.print(
        f"an adapter of {len(recipe.models)} in {out}: {len(plan.ranks)} modules of rank {told},"
        f" {plan.nbytes / 1e6:,.1f} MB"
    )


def _recipe(config: Path) -> Recipe:
    steps = load_steps(config)
    if steps.earlier:
        problem = f"holds {len(steps.recipes)} merges; adapters are averaged by a file of one"
        raise RecipeError(str(config), [Fault("", problem)])
    faults = list(recipe_faults(steps.result))
    if faults:
        raise RecipeError(str(config), faults)
    return steps.result


def _read_all(recipe: Recipe, follow_links: bool) -> list[Adapter]:
    """Every adapter of the recipe; what is wrong with any of them is reported at once."""
    names = [entry.model for entry in recipe.models]
    alone = [name for name in names if len(folders_of(name)) == 1]
    places = find_places(recipe.subject, alone, follow_links)
    adapters: list[Adapter] = []
    faults: list[Fault] = []
    first: dict[Path, str] = {}
    for name in names:
        if name in places:
            where = path_of(places[name]).resolve()
            other = first.setdefault(where, name)
            if other != name:
                problem = f"is the same adapter as '{other}', and would count twice; list it once"
                faults.append(Fault(f"model '{name}'", problem))
                continue
        else:
            problem = "names a base as well; adapters are averaged without one: name the adapter"
            faults.append(Fault(f"model '{name}'", problem))
            continue
        try:
            folder = folder_of_adapter(path_of(places[name]))
            folder = readable(folder, adapter=True, follow_links=follow_links)
            source = FolderSource(folder, follow_links=follow_links)
            read_adapter(name, source)  # its faults, before it is hashed
            hashed = hash_model(folder, follow_links)
            source.prove(hashed.files)
            adapters.append(read_adapter(name, source, hashed.digest))
        except FaultsError as error:
            faults += [
                Fault(f"model '{name}': {each.where}", each.problem) for each in error.faults
            ]
        except CheckpointError as error:
            faults.append(Fault("", str(error)))
    if faults:
        raise CompatibilityError(recipe.subject, faults)
    return adapters
