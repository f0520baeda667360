"""Unchanged tensors of an earlier checkpoint, found again in the store. Knows no Dagster.

Beside every model and every merged checkpoint lies a small artifact of the same digest: the digests
of the model's tensors, the keys of the checkpoint's (merge_ops.plans.reuse).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from assets.work.names import ref_of
from merge_ops.plans.reuse import Earlier, reusing, tensor_digests, tensor_keys

if TYPE_CHECKING:
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.plans import Plan
    from resources.store import ArtifactStore

TENSOR_DIGESTS, TENSOR_KEYS = "tensor_digests", "tensor_keys"
FILE = "tensors.json"


def digests_of(store: "ArtifactStore", model: "Checkpoint", digest: str) -> dict[str, str]:
    """Return the digests of a stored model's tensors, which are read once for each content."""
    known = store.find(TENSOR_DIGESTS, digest)
    if known is not None:
        return known.read_json(FILE)
    digests = tensor_digests(model)
    _keep(store, TENSOR_DIGESTS, digest, digests)
    return digests


def with_reuse(
    store: "ArtifactStore", plan: "Plan", asset: str, keys: Mapping[str, str | None]
) -> "Plan":
    """Have what is unchanged copied from the checkpoints that `asset` points to now.

    `keys` are the asset's partitions by coefficient. Keeps the keys of what the plan makes, for the
    next time. An earlier checkpoint whose files are damaged is not used.
    """
    sources = [source for step in plan.steps for source in step.planned.sources]
    parts = [part for source in sources for part in source.parts]
    stored = {part.checkpoint.name: part.checkpoint for part in parts}
    digests = {
        name: digests_of(store, model, model.digest)
        for name, model in stored.items()
        if model.digest is not None
    }
    tables = tensor_keys(plan, digests)
    for output, table in zip(plan.outputs, tables, strict=True):
        if output.digest is not None and store.find(TENSOR_KEYS, output.digest) is None:
            _keep(store, TENSOR_KEYS, output.digest, table)
    earlier = [
        _earlier(store, asset, keys[each.id], table)
        for each, table in zip(plan.coefficients, tables, strict=True)
    ]
    return reusing(plan, tables, earlier)


def _earlier(
    store: "ArtifactStore", asset: str, partition: str | None, table: Mapping[str, str]
) -> Earlier | None:
    """The partition's checkpoint, if one of its tensors can be copied and its files are whole.

    A virtual one has none.
    """
    from merge_ops.checkpoints import open_checkpoint

    ref = ref_of(store, asset, partition)
    artifact = store.find(ref.kind, ref.digest) if ref is not None else None
    known = store.find(TENSOR_KEYS, artifact.digest) if artifact is not None else None
    if artifact is None or artifact.virtual or known is None:
        return None
    before: dict[str, str] = known.read_json(FILE)
    if before.items().isdisjoint(table.items()) or store.verify(artifact):
        return None
    checkpoint = open_checkpoint(f"{asset}[{partition}]", artifact.source(), artifact.digest)
    return Earlier(checkpoint, before)


def _keep(store: "ArtifactStore", kind: str, digest: str, table: Mapping[str, str]) -> None:
    with store.attempt(kind) as attempt:
        attempt.write_json(FILE, dict(table))
        attempt.publish(digest)
