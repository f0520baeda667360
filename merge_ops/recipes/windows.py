"""The face of windows over training runs, for those who know where runs are."""

from merge_ops.recipes.structures.window_runs import RunPlaces, steps_of_run
from merge_ops.recipes.structures.window_step import STEP, with_steps

__all__ = ["STEP", "RunPlaces", "steps_of_run", "with_steps"]
