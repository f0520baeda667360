"""Merges by every method in a process of its own: prints the plan's digest and the file's.

    python -m tests.merges.digest_merges FOLDER '[["loops", THREADS, BLOCK], ["torch", …]]'

FOLDER has the models base, expert-1 and expert-2; everything is merged once for each entry of the
list. What the process finds of a processor is for its environment to say.
"""

import json
import sys
from pathlib import Path

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.methods import METHODS
from merge_ops.plans.planning import plan_merge
from merge_ops.recipes.reading import parse_recipe
from tests.merges.arithmetics import ARITHMETICS, streamed

DTYPES = ("bfloat16", "float32")
VALUES = {
    "weight": 0.3, "density": 0.4, "t": 0.3, "select_topk": 0.4, "epsilon": 0.1, "lambda": 0.7,
    "gradient_values": [0.2, 0.7], "extrapolation": 0.3, "scale": 0.7,
}  # fmt: skip
# Shares that follow from angles and rows: sines, softmax and sums of rows decide these bits.
MORE = {
    "nuslerp by row": ("nuslerp", {"nuslerp_flatten": False}),
    "nuslerp by column": ("nuslerp", {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    "model_stock by row": ("model_stock", {"filter_wise": True}),
    "della by chance": ("della", {"rescale": "inverse_density"}),
    "ties of the model": ("ties", {"trim": "global", "rescale": "l1_norm"}),
}
EPSILON_OF = {"ram": 1e-5, "ramplus_tl": 1e-5}


def recipe_of(name: str, more: dict[str, object], dtype: str) -> str:
    method = METHODS[name]
    values = {key: VALUES[key] for key in VALUES if key in method.parameter_specs}
    if name in EPSILON_OF:
        values["epsilon"] = EPSILON_OF[name]
    checkpoints = method.inputs == "checkpoints" and method.base == "required"
    experts = ["one", "two"][: (method.exactly or 2) - checkpoints]
    document = {
        "merge_method": name,
        "models": [{"model": each} for each in experts],
        "parameters": {**values, **more},
        "dtype": dtype,
    }
    if method.inputs == "task_vectors" or checkpoints:
        document["base_model"] = "base"
    return json.dumps(document)


def main(folder: str, merges: str) -> None:
    """Print, for each entry of the list, {case: [plan's digest, digest of what was made]}."""
    folders = {"base": "base", "one": "expert-1", "two": "expert-2"}
    opened = {
        name: open_checkpoint(name, FolderSource(Path(folder) / inside), inside)
        for name, inside in folders.items()
    }
    cases = {name: (name, {}) for name in METHODS} | MORE
    wanted = json.loads(merges)
    made: list[dict[str, tuple[str | None, str]]] = [{} for _ in wanted]
    for case, (name, more) in cases.items():
        for dtype in DTYPES:
            recipe = parse_recipe(recipe_of(name, more, dtype), case, case)
            plan = plan_merge(recipe, {each: opened[each] for each in recipe.referenced_models})
            for told, (arithmetic, threads, block) in zip(made, wanted, strict=True):
                file = streamed(plan, ARITHMETICS[arithmetic], threads=threads, block=block)
                told[f"{case}, {dtype}"] = plan.outputs[0].digest, file["default"]
    sys.stdout.write(json.dumps(made) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
