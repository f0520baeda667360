"""Orders of moe_experts that a merge found are kept, so that the next one does not look for them.

They are kept in a catalog's store where there is one (`moe_orders [KEY]`), else on this machine.
Knows no Dagster.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from assets.work.measuring.kept_numbers import file_of, publish, remove_oldest, unless_damaged

if TYPE_CHECKING:
    from merge_ops.calibration.moe_orders import Orders
    from merge_ops.plans import Plan
    from resources.store import ArtifactStore

KIND, FILE = "moe_orders", "orders.safetensors"


@contextmanager
def with_kept_orders(
    plan: "Plan", store: "ArtifactStore | None" = None, cache: Path | None = None
) -> Iterator[None]:
    """Give a plan the orders that were found for it before, and keep what it finds in here.

    Most plans have none. They are kept in `store`, or in `cache`, or in ~/.cache/ronghe/moe_orders.
    """
    aligner = plan.aligner
    key = aligner.key(plan.digest_of) if aligner else None
    if aligner is None or key is None or aligner.found is not None:
        yield
        return
    known = _known(store, cache, key, aligner.shapes)
    if known is not None:
        aligner.take(known)
    yield
    if known is None and aligner.found is not None:
        _keep(store, cache, key, aligner.found)


def _known(
    store: "ArtifactStore | None",
    cache: Path | None,
    key: str,
    shapes: Mapping[str, tuple[int, int]],
) -> "Orders | None":
    from merge_ops.calibration.moe_orders import read_orders

    if store is None:
        path = file_of(KIND, key, cache)
        return unless_damaged(lambda: read_orders(path, key, shapes))
    artifact = store.find(KIND, key)
    return artifact and read_orders(artifact.folder() / FILE, key, shapes)


def _keep(store: "ArtifactStore | None", cache: Path | None, key: str, orders: "Orders") -> None:
    from merge_ops.calibration.moe_orders import write_orders

    def write(path: Path) -> None:
        write_orders(path, orders, key)

    if store is not None:
        publish(store, KIND, key, FILE, write)
        return
    path = file_of(KIND, key, cache)
    write(path)
    remove_oldest(path.parent)
