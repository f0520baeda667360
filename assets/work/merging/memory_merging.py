"""Merging into memory that a model can be loaded from, instead of a store. Knows no Dagster."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from assets.work.measuring.kept_orders import with_kept_orders
from eval_ops.errors import CheckpointLoadError
from merge_ops.errors import RongheError

if TYPE_CHECKING:
    from merge_ops.children import MemoryFolder
    from merge_ops.plans import Plan
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore

TIMES_IN_MEMORY = 3
"""A model is merged into memory where so many of it fit the machine: the memory, the live module,
and what is computed with. A larger one goes through a temporary folder."""

_sound: set[tuple[object, ...]] = set()
"""Forms of checkpoints that were loaded and run once in this process: config, and headers."""


class MergingMemory:
    """Memory for some candidates of one plan at a time; the next ones are merged into the same.

    `store` keeps orders of moe_experts that merges find.
    """

    def __init__(self, store: "ArtifactStore", settings: "StreamSettings") -> None:
        self._store = store
        self._settings = settings
        self._folders: list[MemoryFolder] = []
        self._held: dict[str, MemoryFolder] = {}
        # Plans, by digests, of which candidates cannot be merged together.
        self._alone: set[tuple[str, ...]] = set()

    def holds(self, digest: str) -> bool:
        """Return whether a candidate is in memory now, by its plan's digest."""
        return digest in self._held

    def folder_of(self, plan: "Plan", coefficient: str, ahead: Iterable[str]) -> "MemoryFolder":
        """Give a folder that holds one candidate; those `ahead` may be merged in the same read.

        Raises NonFiniteError, CheckpointError and SettingsError as a merge does.
        """
        digests = {output.coefficient: str(output.digest) for output in plan.outputs}
        if digests[coefficient] not in self._held:
            whole = tuple(digests.values())
            size = sum(shard.size for shard in plan.shards)
            count = room_for(self._settings, size)
            others = [each for each in ahead if each != coefficient]
            together = [coefficient, *others[: count - 1]]
            if whole in self._alone or len(together) == 1:
                self._merge(plan, [coefficient], digests)
            else:
                try:
                    self._merge(plan, together, digests)
                except RongheError:  # of one of them, perhaps: each is to fail for itself
                    self._alone.add(whole)
                    self._merge(plan, [coefficient], digests)
        return self._held[digests[coefficient]]

    def _merge(self, plan: "Plan", wanted: Sequence[str], digests: Mapping[str, str]) -> None:
        from merge_ops.jobs.assembly import merge
        from merge_ops.provenance.nameless_card import nameless_card

        self._held = {}
        chosen = plan.with_coefficients(wanted)
        while len(self._folders) < len(wanted):
            self._folders.append(self._new_folder(plan))
        order = [output.coefficient for output in chosen.outputs]
        sinks = dict(zip(order, self._folders, strict=False))
        for folder in sinks.values():
            folder.start()
        with with_kept_orders(chosen, self._store):
            merge(chosen, sinks, self._settings, card=nameless_card)
        for folder in sinks.values():
            folder.finish()
        self._held = {digests[name]: folder for name, folder in sinks.items()}

    def _new_folder(self, plan: "Plan") -> "MemoryFolder":
        from merge_ops.children import MemoryFolder, shares_memory
        from merge_ops.stream import choose_device, machine_memory

        size = sum(shard.size for shard in plan.shards)
        fits = size * TIMES_IN_MEMORY <= machine_memory()
        return MemoryFolder(fits and shares_memory(choose_device(self._settings.device) != "cpu"))

    def close(self) -> None:
        """Let go of it."""
        self._held = {}
        while self._folders:
            self._folders.pop().close()


def room_for(settings: "StreamSettings", of_one: int) -> int:
    """How many candidates are merged from one read: those that the bound of memory holds."""
    return max(1, settings.memory // max(1, of_one))


def look(plan: "Plan", folder: "MemoryFolder", called: str) -> None:
    """Load and run a candidate as the check of a written one does; of equal forms only the first.

    That every tensor is there and finite, the merge has seen to; that each candidate's numbers are
    finite when it runs, its scores do. Raises CheckpointLoadError.
    """
    from merge_ops.jobs.verification import loading_problems

    form = (*(shard.header for shard in plan.shards), repr(sorted(plan.config.items())))
    if form in _sound:
        return
    problems = loading_problems(folder.path, len(plan.steps), called)
    if problems:
        raise CheckpointLoadError(f"{called}: {'; '.join(problems)}")
    _sound.add(form)
