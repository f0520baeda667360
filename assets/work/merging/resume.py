"""A merge into the store that goes on where a killed one stopped. Knows no Dagster."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assets.work.measuring.kept_orders import with_kept_orders
from assets.work.merging.manifests import cost_fields
from merge_ops.plans.resume import Remains, resuming, tensor_places

if TYPE_CHECKING:
    from merge_ops.jobs.assembly import MergeReport
    from merge_ops.plans import Plan
    from merge_ops.plans.plan import Output
    from merge_ops.progress import Progress
    from merge_ops.stream import StreamSettings
    from resources.store import Artifact, ArtifactStore, Unfinished


@dataclass(frozen=True)
class CarriedOut:
    """What a merge published, by coefficient; `resumed` tensors came from killed merges."""

    report: "MergeReport"
    artifacts: Mapping[str, "Artifact"]
    resumed: int


@dataclass(frozen=True)
class _Continuation:
    """A plan that goes on; what it copies from, and what the copied bytes must hash to.

    `expected` is by coefficient and file: the bytes that are copied, and their blake3.
    """

    plan: "Plan"
    unfinished: tuple["Unfinished", ...] = ()
    expected: Mapping[str, Mapping[str, tuple[int, str]]] = field(default_factory=dict)
    resumed: int = 0


def carry_out(
    store: "ArtifactStore",
    kind: str,
    plan: "Plan",
    fields: Callable[["Output"], Mapping[str, Any]],
    settings: "StreamSettings",
    progress: "Progress | None" = None,
) -> CarriedOut:
    """Merge every coefficient of `plan` and publish it under its digest, with manifest `fields`.

    Tensors that killed merges of the same plan had finished are copied, checked before and while
    they are copied. Where that fails (gc was told to remove everything at once) all is merged.
    """
    from resources.errors import UnfinishedReadError

    continuation = _continued(store, kind, plan)
    try:
        return _merge(store, kind, continuation, fields, settings, progress)
    except Exception as error:
        failed = any(each.failed for each in continuation.unfinished)
        if not failed and not isinstance(error, UnfinishedReadError):
            raise
        return _merge(store, kind, _Continuation(plan), fields, settings, progress)
    finally:
        for each in continuation.unfinished:
            each.close()


def _merge(
    store: "ArtifactStore",
    kind: str,
    continuation: _Continuation,
    fields: Callable[["Output"], Mapping[str, Any]],
    settings: "StreamSettings",
    progress: "Progress | None",
) -> CarriedOut:
    from merge_ops.jobs.assembly import merge
    from merge_ops.provenance.nameless_card import nameless_card

    outputs = continuation.plan.outputs
    with ExitStack() as stack:
        attempts = {
            output.coefficient: stack.enter_context(store.attempt(kind, output.digest))
            for output in outputs
        }
        for coefficient, files in continuation.expected.items():
            for file, (done, digest) in files.items():
                attempts[coefficient].expect(file, done, digest)
        with with_kept_orders(continuation.plan, store):
            report = merge(continuation.plan, attempts, settings, progress, nameless_card)
        cost = cost_fields(report, settings, len(outputs))
        artifacts = {
            output.coefficient: attempts[output.coefficient].publish(
                output.digest, **fields(output), **cost
            )
            for output in outputs
        }
    for each in continuation.unfinished:
        each.release()
    return CarriedOut(report, artifacts, continuation.resumed)


def _continued(store: "ArtifactStore", kind: str, plan: "Plan") -> _Continuation:
    """The plan with what killed merges finished; their files are read once to be sure of them."""
    if any(output.digest is None for output in plan.outputs):
        return _Continuation(plan)
    places, ends = tensor_places(plan), dict[str, list[int]]()
    for place in places:
        ends.setdefault(place.file, []).append(place.offset + place.nbytes)
    candidates = [store.unfinished(kind, str(output.digest)) for output in plan.outputs]
    unfinished = tuple(each for attempts in candidates for each in attempts)
    if not all(candidates):
        for each in unfinished:
            each.release()
        return _Continuation(plan)
    remains = [_farthest(attempts, ends) for attempts in candidates]
    resumed = resuming(plan, [Remains(source, digests) for source, digests in remains])
    triples = zip(places, plan.steps, resumed.steps, strict=True)
    copied = {
        place.file: place.offset + place.nbytes
        for place, before, after in triples
        if before is not after
    }  # the last of each file
    expected = {
        output.coefficient: {file: (end, digests[file][end]) for file, end in copied.items()}
        for output, (_, digests) in zip(plan.outputs, remains, strict=True)
    }
    count = sum(a is not b for a, b in zip(plan.steps, resumed.steps, strict=True))
    return _Continuation(resumed, unfinished, expected, count)


def _farthest(
    candidates: list["Unfinished"], ends: Mapping[str, list[int]]
) -> tuple["Unfinished", dict[str, dict[int, str]]]:
    """The one of which most bytes are good; one that cannot be better is not read."""
    best, reached = candidates[0], candidates[0].check(ends)
    for each in candidates[1:]:
        if each.journaled > best.checked:
            other = each.check(ends)
            if each.checked > best.checked:
                best, reached = each, other
    return best, reached
