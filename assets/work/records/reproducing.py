"""A checkpoint made again from what its card or manifest says, and its bytes compared.

Knows no store: inputs are opened by whoever calls. Knows no Dagster.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from merge_ops.checkpoints import ByteSource, Checkpoint, FolderSink, FolderSource
from merge_ops.errors import ReproductionError
from merge_ops.provenance.hub_card import CARD_FILE, MakingStep, Part, Reproduction

if TYPE_CHECKING:
    from merge_ops.plans import Plan
    from merge_ops.progress import Progress
    from merge_ops.stream import StreamSettings

SHARD_BYTES = 5_000_000_000
"""Most data of a file of weights, where nothing else was said when it was merged."""
OpenPart = Callable[[Part, str], ByteSource]
"""Opens a part that goes in, whose content it has proved to have the digest; the text is its name.
Raises ReproductionError where there is none."""


@dataclass(frozen=True)
class Remade:
    """What came of making a checkpoint again: the BLAKE3 of each file, without its card.

    `equal` are the files that are as they were, `different` those that are not or are not there.
    """

    digest: str
    files: Mapping[str, str]
    equal: tuple[str, ...]
    different: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Tell whether there were files to compare with, and all are the same."""
        return bool(self.equal) and not self.different


def make_again(
    reproduction: Reproduction,
    open_part: OpenPart,
    settings: "StreamSettings",
    work: Path,
    release: str | None,
    shard_bytes: int = SHARD_BYTES,
    progress: "Progress | None" = None,
) -> Remade:
    """Plan and merge a checkpoint again, and compare its files with those it had.

    Results of earlier steps are written below `work`; the last one is hashed and not kept. Raises
    ReproductionError where an input is gone, or what is planned is another checkpoint, and what a
    merge raises.
    """
    from merge_ops.jobs.assembly import merge
    from merge_ops.provenance.nameless_card import nameless_card
    from merge_ops.stream import check_settings

    made: dict[str, ByteSource] = {}

    def opened(part: Part, name: str) -> ByteSource:
        return made[part.digest] if part.digest in made else open_part(part, name)

    hashes = HashingSink()
    for number, step in enumerate(reproduction.steps):
        plan = plan_again(step, opened, settings, release, reproduction.release, shard_bytes)
        check_settings(plan, settings)
        last = number == len(reproduction.steps) - 1
        folder = work / str(number)
        sink = hashes if last else FolderSink(folder)
        coefficient = plan.coefficients[0].id
        merge(plan, {coefficient: sink}, settings, progress if last else None, nameless_card)
        made[step.digest] = FolderSource(folder)
    files = {name: each for name, each in sorted(hashes.files.items()) if name != CARD_FILE}
    known = reproduction.files
    equal = [name for name in sorted(known) if files.get(name) == known[name]]
    different = [name for name in sorted(known) if name not in equal]
    return Remade(reproduction.digest, files, tuple(equal), tuple(different))


def plan_again(
    step: MakingStep,
    open_part: OpenPart,
    settings: "StreamSettings",
    release: str | None,
    made_by: str | None,
    shard_bytes: int = SHARD_BYTES,
) -> "Plan":
    """Plan one step again from its inputs. Raises ReproductionError where it is another one."""
    from merge_ops.plans import plan_merge
    from merge_ops.recipes import check_recipe
    from merge_ops.stream import arithmetic_kind

    arithmetic = arithmetic_kind(settings.device)
    if step.arithmetic is not None and step.arithmetic != arithmetic:
        raise ReproductionError(
            f"checkpoint {step.digest[:12]} was merged with the arithmetic of {step.arithmetic!r},"
            f" and here it would be that of {arithmetic!r}, whose last bits differ; choose the"
            " other with --device, on a machine that has it"
        )
    recipe = check_recipe(dict(step.recipe), "again", f"checkpoint {step.digest[:12]}")
    missing = [name for name in recipe.referenced_models if name not in step.models]
    if missing:
        raise ReproductionError(
            f"checkpoint {step.digest[:12]}: its recipe names {', '.join(missing)}, and no digest"
            " of that stands beside it; the card was changed by hand, or cut"
        )
    models = {
        name: _opened(name, step.models[name], open_part) for name in recipe.referenced_models
    }
    plan = plan_merge(recipe, models, shard_bytes=shard_bytes, arithmetic=arithmetic)
    found = plan.outputs[0].digest
    if len(plan.outputs) != 1 or found != step.digest:
        other = f"release {made_by} planned it, and this is {release}; use that one"
        same = (
            "the recipe beside it was changed, or its files were cut at another --shard-size than"
            f" {shard_bytes} bytes"
        )
        raise ReproductionError(
            f"checkpoint {step.digest[:12]} is planned as another one now ({str(found)[:12]}):"
            f" {other if made_by != release else same}"
        )
    return plan


def _opened(name: str, parts: tuple[Part, ...], open_part: OpenPart) -> Checkpoint:
    """A model, or a base with the adapters on it."""
    from merge_ops.checkpoints import open_checkpoint
    from merge_ops.sources import open_adapter

    called = name if len(parts) == 1 else parts[0].digest[:12]
    model = open_checkpoint(called, open_part(parts[0], name), parts[0].digest)
    for position, part in enumerate(parts[1:], start=2):
        called = name if position == len(parts) else part.digest[:12]
        model = open_adapter(called, model, open_part(part, name), part.digest)
    return model


class HashingSink:
    """A hashing sink keeps the BLAKE3 of each file that is written into it, and nothing else."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def open(self, file: str, size: int) -> "HashedFile":
        """Start a file and return its writer."""
        return HashedFile(self, file)


class HashedFile:
    """A hashed file takes bytes in order and keeps their hash."""

    def __init__(self, sink: HashingSink, file: str) -> None:
        self._sink, self._file, self._hasher = sink, file, blake3()

    def write(self, data: memoryview | bytes) -> object:
        """Hash bytes."""
        return self._hasher.update(data)

    def __enter__(self) -> "HashedFile":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self._sink.files[self._file] = self._hasher.hexdigest()
