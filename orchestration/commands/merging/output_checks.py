"""The output of `ronghe merge` is looked at, as planned and once it is written."""

from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from rich.console import Console

from merge_ops.plans import Plan
from merge_ops.plans.agreement.expected_tensors import ExpectedTensors, Finding, can_look
from orchestration.commands.cautions import refuse_cautions, show_cautions
from orchestration.commands.console import say


class OutputChecks:
    """The checks of one merge. With `verify` transformers is asked, where it is installed.

    It is asked in a child process, which works while models are hashed and merged; with `strict`
    its warnings are errors too, and so it is waited for before.
    """

    def __init__(self, console: Console, plan: Plan, strict: bool, verify: bool) -> None:
        self._console = console
        self._plan = plan
        self._strict = strict
        self._verify = verify
        self._stack = ExitStack()
        self._child: ExpectedTensors | None = None
        self._told = False

    def __enter__(self) -> "OutputChecks":
        """Start the child."""
        if self._verify and can_look(self._plan):
            self._child = self._stack.enter_context(ExpectedTensors(self._plan))
            if self._strict:
                with self._stack.pop_all() as kept:
                    self.look_at_plan(wait=True)
                    self._stack = kept.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the child."""
        self._stack.close()

    def look_at_plan(self, wait: bool) -> None:
        """Raise CompatibilityError where the planned tensors are not those of the architecture.

        Without `wait` nothing happens before the child has answered. Warnings are printed once.
        """
        if self._child is None or self._told or not (wait or self._child.ready):
            return
        finding = self._child.of_plan()
        self._told = True
        self._take(finding)
        if finding.not_looked:
            say(self._console, f"not looked at by transformers: {finding.not_looked}")

    def look_at_files(self, plan: Plan, folders: Iterable[Path]) -> None:
        """Look at written checkpoints, and first at the plan if that was not done yet.

        Raises CheckpointError where a header is not as planned, CompatibilityError where
        transformers does not load what is there.
        """
        from merge_ops.jobs.verification import check_written

        self.look_at_plan(wait=True)
        for number, folder in enumerate(folders):
            check_written(plan, folder)
            if self._child is not None and number == 0:  # the others have the same headers
                self._take(self._child.of_files(folder), shown=False)

    def _take(self, finding: Finding, shown: bool = True) -> None:
        subject = f"{self._plan.recipe.subject}: the output is not published"
        finding.raise_faults(subject)
        if self._strict:
            refuse_cautions(self._plan.recipe.subject, finding.cautions)
        if shown:
            show_cautions(self._console, finding.cautions)
