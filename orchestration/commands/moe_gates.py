"""Gates of the mixtures of experts in a file, measured before it is merged."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from merge_ops.errors import Fault, RecipeError
from merge_ops.recipes import Steps
from orchestration.commands.extras import require
from orchestration.settings import Computing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from merge_ops.checkpoints import Checkpoint
    from merge_ops.recipes import Recipe

Gates = Mapping[int, "NDArray[np.float32]"]


def measured_gates(
    console: "Console", steps: Steps, how: Computing, opened: Mapping[str, "Checkpoint"]
) -> dict[str, Gates]:
    """Return the gates of every mixture whose routers are made of prompts, by its recipe's name.

    The base is run on its prompts in the limited child, or its embeddings are read. `opened` has
    the headers of the models. Raises RecipeError for a base that is not written yet, EvalError and
    StatisticsError.
    """
    found: dict[str, Gates] = {}
    made = {recipe.name for recipe in steps.earlier}
    for recipe in steps.recipes:
        if recipe.moe is None or not recipe.moe.needs_prompts:
            continue
        if recipe.moe.base_model in made:
            problem = f"is the result of document {recipe.moe.base_model}, and gates are made of a"
            way = "model that is there: merge it first, or use `gate_mode: random`"
            raise RecipeError(recipe.subject, [Fault("base_model", f"{problem} {way}")])
        found[recipe.name] = _gates(console, recipe, how, opened)
    return found


def _gates(
    console: "Console", recipe: "Recipe", how: Computing, opened: Mapping[str, "Checkpoint"]
) -> Gates:
    from merge_ops.calibration import Prompts
    from orchestration.commands.gates_command import base_of, measured_gates, running_on

    step = recipe.moe
    assert step is not None  # the caller has looked
    for module in ("transformers",) if step.only_embeds else ("torch", "transformers"):
        require(module)
    base = base_of(recipe.subject, step.base_model)
    prompts = [Prompts(*each) for each in step.prompts]
    if step.only_embeds:
        from assets.work.gating import embedded_gates

        return embedded_gates(base, opened[step.base_model], prompts)
    running = running_on(how.device, how.threads)
    return measured_gates(base, prompts, step.gate_mode, running, console).gates
