"""Routers fitted on calibration texts, in the child that runs models. Knows no Dagster.

What a recipe merges is written once with the routers that it has unfitted; on that model the rows
are fitted, and then the recipe is planned with them. They are kept by what they were fitted from,
so that the second time nothing is run.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import blake3

from assets.work.measuring.kept_numbers import file_of, remove_oldest, unless_damaged
from assets.work.measuring.model_child import Base, Running, ask_model
from merge_ops.calibration.gates import FITTED, gates_digest, read_gates, write_gates

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from merge_ops.calibration.moe_statistics import MoeStatistics
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.plans import Plan
    from merge_ops.progress import Progress
    from merge_ops.recipes import Recipe

    Rows = Mapping[int, NDArray[np.float32]]

KEY_VERSION = 1
"""Raised when the same models and texts give other rows."""
WAY_OUT = "Where it is out of memory: fit on a machine with more, or on fewer texts"
_MODULE = "eval_ops.running.mixtures.router_child"


@dataclass(frozen=True, eq=False)
class Calibration:
    """A calibration says what routers are fitted to: texts and a source's rows by layer, for each.

    `groups` has the moe_experts of the one source that became one, by layer; None where each has a
    row. `digest` is that of the model whose routers they are, unfitted.
    """

    sources: "Sequence[tuple[Sequence[str], Rows]]"
    groups: Mapping[int, Sequence[Sequence[int]]] | None
    digest: str

    @property
    def key(self) -> str:
        """Return the digest of what rows are fitted from; equal keys stand for equal rows."""
        told = [[list(texts), gates_digest(rows)] for texts, rows in self.sources]
        groups = None if self.groups is None else sorted(self.groups.items())
        content = json.dumps([KEY_VERSION, self.digest, told, groups])
        return blake3.blake3(content.encode()).hexdigest()

    @property
    def metadata(self) -> dict[str, str]:
        """Return what a file of these rows says of itself."""
        return {"mode": FITTED, "key": self.key}


@dataclass(frozen=True)
class Fitted:
    """Fitted rows by layer; how far from the sources' routing before and after (KL, nats).

    Both are None where the rows had been fitted before.
    """

    rows: "Rows"
    before: float | None = None
    after: float | None = None


def calibration_of(
    recipe: "Recipe",
    plan: "Plan",
    models: Mapping[str, "Checkpoint"],
    statistics: "MoeStatistics | None",
) -> Calibration:
    """Return what the routers of a recipe are fitted to; `plan` is that of it without the fit.

    The plan must have digests. `statistics` are those of a `moe:` step's texts. Rows are read.
    """
    from merge_ops.stream.router_rows import fewer_rows, merged_rows

    digest = str(plan.outputs[0].digest)
    if recipe.fewer is not None:
        rows, groups = fewer_rows(recipe, models, statistics)
        assert recipe.fewer.texts is not None  # the recipe was checked
        return Calibration([(recipe.fewer.texts.lines, rows)], groups, digest)
    policy = recipe.router
    assert policy is not None  # a recipe that calibrates is one or the other
    rows = merged_rows(plan)
    found: list[tuple[Sequence[str], Rows]] = []
    for name, own in rows.items():
        texts = policy.texts_of(name)
        assert texts is not None  # the plan has looked
        found.append((texts.lines, own))
    return Calibration(found, None, digest)


def known_rows(calibration: Calibration, cache: Path | None = None) -> Fitted | None:
    """Return rows that were fitted on this machine before; None where there are none."""
    path = _kept(calibration, cache)
    rows = unless_damaged(lambda: read_gates(path, key=calibration.key))
    return None if rows is None else Fitted(rows)


def keep_rows(calibration: Calibration, fitted: Fitted, cache: Path | None = None) -> None:
    """Keep rows in `cache`, or in ~/.cache/ronghe/gates."""
    path = _kept(calibration, cache)
    write_gates(path, fitted.rows, calibration.metadata)
    remove_oldest(path.parent)


def _kept(calibration: Calibration, cache: Path | None) -> Path:
    return file_of("gates", calibration.key, cache)


def fitted_rows(
    calibration: Calibration,
    model: Base,
    running: Running,
    progress: "Progress | None" = None,
) -> Fitted:
    """Fit the routers of `model`, which is what the recipe merges without the fit.

    Raises EvalError.
    """
    from eval_ops.running.mixtures.gates import packed, unpacked

    asked: dict[str, Any] = {
        "sources": [
            {"texts": list(texts), "rows": {str(at): packed(each) for at, each in rows.items()}}
            for texts, rows in calibration.sources
        ],
        "groups": calibration.groups
        and {str(layer): each for layer, each in calibration.groups.items()},
    }
    doing = f"fits the routers of {model.called}"
    answer = ask_model(_MODULE, model, asked, running, doing, WAY_OUT, progress)
    rows = {int(layer): unpacked(each) for layer, each in answer["rows"].items()}
    return Fitted(dict(sorted(rows.items())), float(answer["before"]), float(answer["after"]))
