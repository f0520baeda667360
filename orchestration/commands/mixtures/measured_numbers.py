"""Numbers that recipes of a file need before they are merged: gates, statistics, fitted routers.

They are measured in the limited child, one recipe after the other, and kept. What is measured on
the result of an earlier document, or on what a recipe merges without its fit, is written first into
a folder of its own beside the output, which goes when its numbers are there.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.recipes import Steps
from orchestration.commands.console import PlainConsole, progress_bar, say
from orchestration.commands.extras import require
from orchestration.settings import Computing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import Console

    from assets.work.measuring.model_child import Base, Running
    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.checkpoints import ByteSource, Checkpoint
    from merge_ops.plans import Plan
    from merge_ops.progress import Progress
    from merge_ops.recipes import Recipe

    Gates = Mapping[int, NDArray[np.float32]]


@dataclass
class MeasuredNumbers:
    """Measured numbers of the recipes of a file, by their names.

    `opened` are the models from outside it. `place` is a folder beside the output, in which models
    are written that are measured.
    """

    console: "Console"
    steps: Steps
    opened: "Mapping[str, Checkpoint]"
    how: Computing
    place: Path
    gates: "dict[str, Gates]" = field(default_factory=dict[str, "Gates"])
    statistics: "dict[str, MoeStatistics]" = field(default_factory=dict[str, "MoeStatistics"])
    _written: "dict[str, Checkpoint]" = field(default_factory=dict[str, "Checkpoint"])
    _digests: "dict[ByteSource, str]" = field(default_factory=dict["ByteSource", str])

    def measure(self) -> None:
        """Measure what each recipe needs. Raises EvalError, and what merging raises."""
        for recipe in self.steps.recipes:
            if not recipe.measures:
                continue
            embeds = recipe.moe is not None and recipe.moe.only_embeds
            for module in ("transformers",) if embeds else ("torch", "transformers"):
                require(module)
            if recipe.moe is not None and recipe.moe.needs_prompts:
                self._gates(recipe)
            if recipe.fewer is not None and recipe.fewer.measures:
                self._statistics(recipe)
            if recipe.calibrates:
                self._routers(recipe)

    def _gates(self, recipe: "Recipe") -> None:
        from assets.work.measuring.gating import gates_of
        from merge_ops.calibration.gates import Prompts
        from orchestration.commands.mixtures.gates_command import measured_gates

        step = recipe.moe
        assert step is not None  # the caller has looked
        prompts = [Prompts(*each) for each in step.prompts]
        base = self._model(recipe, step.base_model)
        if step.only_embeds:
            from assets.work.measuring.gating import embedded_gates

            model = self._written.get(step.base_model) or self.opened[step.base_model]
            self.gates[recipe.name] = embedded_gates(base, model, prompts)
            return
        running = self._running()
        if step.base_model in self._written:  # our own, which nobody changes
            with self._bar(f"measuring gates on {base.called}") as tell:
                measured = gates_of(base, prompts, step.gate_mode, running, tell)
        else:
            measured = measured_gates(base, prompts, step.gate_mode, running, self.console)
        self.gates[recipe.name] = measured.gates

    def _statistics(self, recipe: "Recipe") -> None:
        from assets.work.measuring.moe_measuring import moe_statistics_of

        step = recipe.fewer
        assert step is not None
        assert step.texts is not None  # the caller has looked
        if step.statistics is not None:
            return
        model = self._model(recipe, recipe.models[0].model)
        with self._bar(f"measuring the moe_experts of {model.called}") as tell:
            found, _ = moe_statistics_of(model, step.texts.lines, self._running(), tell)
        self.statistics[recipe.name] = found

    def _routers(self, recipe: "Recipe") -> None:
        """Fit a recipe's routers on what it merges without that, if they were not fitted before."""
        from assets.work.measuring.model_child import Base
        from assets.work.measuring.router_calibrating import (
            calibration_of,
            fitted_rows,
            keep_rows,
            known_rows,
        )
        from merge_ops.recipes.document import uncalibrated

        plan = self._plan(uncalibrated(recipe))
        models = {**self.opened, **self._written}
        calibration = calibration_of(recipe, plan, models, self.statistics.get(recipe.name))
        fitted = known_rows(calibration)
        if fitted is None:
            folder = self._folder(recipe.name, "unfitted")
            self._write(plan, folder)
            model = Base(folder, f"what {recipe.name} merges", calibration.digest)
            with self._bar(f"fitting the routers of {recipe.name}") as tell:
                fitted = fitted_rows(calibration, model, self._running(), tell)
            keep_rows(calibration, fitted)
            told = f"{fitted.before:.3g} nats before and {fitted.after:.3g} after (KL, mean over"
            say(self.console, f"routers of {recipe.name}: from their sources' odds {told} layers)")
        else:
            say(self.console, f"the routers of {recipe.name} were fitted on these texts before")
        self.gates[recipe.name] = fitted.rows

    def _model(self, recipe: "Recipe", name: str) -> "Base":
        """The model of a recipe that is measured; the result of an earlier document is written."""
        from assets.work.measuring.model_child import Base
        from orchestration.commands.mixtures.gates_command import base_of

        if all(each.name != name for each in self.steps.earlier):
            return base_of(recipe.subject, name)
        written = self._earlier(name)
        return Base(self._folder(name), f"the result of document {name}", str(written.digest))

    def _earlier(self, name: str) -> "Checkpoint":
        """The result of an earlier document, written where it is not yet."""
        from merge_ops.checkpoints import FolderSource, open_checkpoint

        if name not in self._written:
            plan = self._plan(next(each for each in self.steps.earlier if each.name == name))
            folder = self._folder(name)
            self._write(plan, folder)
            digest = plan.outputs[0].digest
            self._written[name] = open_checkpoint(name, FolderSource(folder), digest)
        return self._written[name]

    def _folder(self, name: str, kind: str = "step") -> Path:
        """Where the result of a document is: its name may hold anything, other folders too."""
        number = [each.name for each in self.steps.recipes].index(name)
        return self.place / f"{kind}-{number}"

    def _plan(self, recipe: "Recipe") -> "Plan":
        """The plan of one recipe, with digests, on earlier results as they were written."""
        from merge_ops.plans import plan_merge
        from merge_ops.stream import arithmetic_kind
        from orchestration.commands.models.input_digests import prove_models

        made = {each.name for each in self.steps.earlier}
        models = {
            name: self._earlier(name) if name in made else self.opened[name]
            for name in recipe.referenced_models
        }
        if not self._digests:
            self._digests |= prove_models(self.opened.values())
        plan = plan_merge(
            recipe,
            models,
            arithmetic=arithmetic_kind(self.how.device),
            gates=self.gates.get(recipe.name),
            statistics=self.statistics.get(recipe.name),
        )
        return plan.with_digests(self._digests)

    def _write(self, plan: "Plan", folder: Path) -> None:
        from assets.work.measuring.kept_orders import with_kept_orders
        from merge_ops.checkpoints import FolderSink
        from merge_ops.jobs.assembly import merge
        from merge_ops.stream import StreamSettings

        settings = StreamSettings(self.how.threads, self.how.device, self.how.memory)
        told = f"{plan.recipe.name}: {plan.method.name}, to be measured"
        with self._bar(told) as tell, with_kept_orders(plan):
            merge(plan, {"default": FolderSink(folder)}, settings, tell)

    def _running(self) -> "Running":
        from orchestration.commands.mixtures.gates_command import running_on

        return running_on(self.how.device, self.how.threads)

    @contextmanager
    def _bar(self, words: str) -> "Iterator[Progress]":
        bar = progress_bar(PlainConsole(stderr=True))
        with bar:
            task = bar.add_task(words, total=None)
            yield lambda done, whole: bar.update(task, completed=done, total=whole)
