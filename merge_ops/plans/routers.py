"""Routers of mixtures of experts: merged as the rest, taken from one model, or fitted on texts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from merge_ops.arrangement.completeness import named
from merge_ops.arrangement.groups import Group, Place
from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource
from merge_ops.checkpoints.header import FLOAT_DTYPES
from merge_ops.checkpoints.layout import OutputTensor
from merge_ops.checkpoints.names.depth import layer_of
from merge_ops.checkpoints.names.tensor_names import shape_fault
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import Caution, Fault, RecipeError
from merge_ops.plans.steps import Copy, Merge, Step
from merge_ops.recipes.recipe import DTYPES, Recipe
from merge_ops.recipes.router_policy import BASE, CALIBRATE, EXPERT, KEY, MERGE, TEXTS
from merge_ops.sources.fused_layouts import ROUTERS, is_router, router_of
from merge_ops.sources.missing_rows import MissingRows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Rows = Mapping[int, NDArray[np.float32]]

CALIBRATED = ("mixtral", "qwen2_moe", "qwen3_moe")
"""Model types whose routing is computed where models are run
(eval_ops.running.mixtures.moe_walk).
"""


class Routers:
    """The routers of one merge, and where each comes from."""

    def __init__(
        self,
        recipe: Recipe,
        checkpoints: Mapping[str, Checkpoint],
        donor: Checkpoint,
        rows: Rows | None = None,
    ) -> None:
        """Look at a recipe whose router is calibrated with `rows` by layer, if that was done."""
        self._recipe = recipe
        self._rows = rows
        self._checkpoints = checkpoints
        self._donor = donor
        self._pattern: re.Pattern[str] | None = router_of(donor.config)
        policy = recipe.router
        self._taken = policy is not None and policy.kind != MERGE

    def check(self, places: Sequence[Place]) -> None:
        """Raise RecipeError where a recipe takes routers from a model and has none to take."""
        policy = self._recipe.router
        if policy is None or not self._taken:
            return
        problem = ""
        if self._pattern is None:
            known = ", ".join(ROUTERS)
            problem = f"is set, and which tensors of {self._donor.name} are routers is not known"
            problem += (
                f" for its model_type {self._donor.config.get('model_type')!r}; known: {known}"
            )
        elif not any(is_router(self._pattern, place.name) for place in places):
            problem = f"is set, and {self._donor.name} has no router: leave it out"
        elif policy.expert is not None and policy.expert not in self._recipe.merged_models:
            listed = ", ".join(self._recipe.merged_models)
            problem = f"names '{policy.expert}', which is not merged here; merged are: {listed}"
        elif policy.kind == BASE and self._recipe.base_model is None:
            problem = f"is '{BASE}', and {self._recipe.merge_method} was given no base; write"
            problem += f" `{KEY}: {EXPERT}NAME`"
        if problem:
            raise RecipeError(self._recipe.subject, [Fault(KEY, problem)])
        faults = list(self._calibration_faults(places)) if policy.calibrates else []
        if faults:
            raise RecipeError(self._recipe.subject, faults)

    def _calibration_faults(self, places: Sequence[Place]) -> Iterator[Fault]:
        """What stands against fitting the routers: the family, the texts, or the rows."""
        policy, kind = self._recipe.router, self._donor.config.get("model_type")
        assert policy is not None  # the caller has looked
        if kind not in CALIBRATED:
            problem = f"is '{CALIBRATE}', and routing of model_type {kind!r} is not computed here"
            yield Fault(KEY, f"{problem}; it is of {', '.join(CALIBRATED)}")
            return
        pattern = self._pattern
        routers = [each for each in places if pattern and is_router(pattern, each.name)]
        merged = list(dict.fromkeys(m.name for p in routers if p.group for m in p.group.inputs))
        for name in merged:
            if policy.texts_of(name) is None:
                problem = f"names none for '{name}'; write a file for each model that is merged"
                yield Fault(TEXTS, f"{problem}, or one for all")
        for name in policy.texts:
            if name and name not in merged:
                problem = f"is no model whose router is merged here; these are {', '.join(merged)}"
                yield Fault(f"{TEXTS}.{name}", problem)
        layers = {place[1] for each in routers if (place := layer_of(each.name)) is not None}
        if self._rows is not None and set(self._rows) != layers:
            yield Fault(KEY, f"has rows of the layers {sorted(self._rows)}, not {sorted(layers)}")

    def _fitted(self, place: Place, group: Group, faults: list[Fault]) -> Copy | None:
        """The step that writes the rows of a router as they were fitted."""
        leader, layer = find_source(group.members[0], place.base_name), layer_of(place.name)
        assert leader is not None  # places come from the leader's own tensors
        assert layer is not None  # and routers lie in layers
        written = self._recipe.out_dtype or self._recipe.dtype
        dtype, subject = DTYPES[written] if written else leader.dtype, self._recipe.subject
        source: TensorSource = MissingRows(
            self._donor.name, dtype, leader.shape, subject, KEY, CALIBRATE
        )
        if self._rows is not None:
            from merge_ops.sources.moe_tensors import GivenRows  # few merges need it

            source = GivenRows(self._donor.name, dtype, self._rows[layer[1]])
            if source.shape != leader.shape:
                faults.append(Fault(KEY, f"has rows {source.shape} for {place.name}"))
                return None
        return Copy(OutputTensor(place.name, dtype, leader.shape), source)

    def taken(self, place: Place, faults: list[Fault]) -> Copy | None:
        """Return the step that takes a router from its model; None for what is merged.

        What does not fit goes to `faults`.
        """
        policy, group = self._recipe.router, place.group
        if policy is None or not self._taken or group is None or self._pattern is None:
            return None
        if not is_router(self._pattern, place.name):
            return None
        if policy.calibrates:
            return self._fitted(place, group, faults)
        wanted = policy.expert or self._recipe.base_model
        names = [(each, name) for each, name in zip(group.inputs, place.names, strict=True)]
        if group.base is not None:
            names.append((group.base, place.base_name))
        model = self._checkpoints[wanted] if wanted else None
        found = next((pair for pair in names if pair[0] is model), None)
        if found is None:
            problem = (
                f"is not among the models that '{place.name}' is made of; {KEY} needs it there"
            )
            faults.append(Fault(f"{KEY}: {wanted}", problem))
            return None
        source, leader = find_source(*found), find_source(group.members[0], place.base_name)
        if source is None or leader is None:
            faults.append(Fault(found[0].name, f"lacks '{found[1]}', which `{KEY}` takes from it"))
            return None
        if source.shape != leader.shape:
            shapes = (leader.shape, source.shape)
            faults.append(shape_fault(group.members[0], found[0], found[1], *shapes))
            return None
        written = self._recipe.out_dtype or self._recipe.dtype
        dtype = DTYPES[written] if written else leader.dtype
        if source.dtype != dtype and source.dtype in FLOAT_DTYPES:
            from merge_ops.sources.moe_tensors import ChangedTensor  # few merges need it

            source = ChangedTensor(source, dtype, place.name)
        return Copy(OutputTensor(place.name, source.dtype, source.shape), source)

    def cautions(self, steps: Sequence[Step]) -> list[Caution]:
        """Return a caution where a method trims or drops entries of a router, unasked."""
        method = self._recipe.method
        if self._recipe.router is not None or method.sees not in ("trimmed", "dropped"):
            return []
        if self._pattern is None:
            return []
        merged = [s.output.name for s in steps if isinstance(s, Merge)]
        routers = [name for name in merged if is_router(self._pattern, name)]
        if not routers:
            return []
        done = "trims" if method.sees == "trimmed" else "drops entries of"
        return [
            Caution(
                KEY,
                f"{method.name} {done} routers ({named(routers)}), whose few entries decide where"
                " every token goes",
                f"Set `{KEY}: {BASE}` or `{KEY}: {EXPERT}NAME`; `{KEY}: {MERGE}` keeps it so",
            )
        ]
