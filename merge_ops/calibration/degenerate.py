"""Gates that hardly tell the moe_experts apart: what was seen, in which layers, what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from merge_ops.errors import Caution

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from merge_ops.calibration.gates import Gates

WORST_CONDITION = 5.0
"""Of a layer's rows, largest over smallest singular value; mergekit-moe warns above it too."""
_ZERO = 0.5  # measured rows have length 1, or nearly 0


def gate_cautions(gates: Gates, where: str, mode: str = "") -> tuple[Caution, ...]:
    """Return what is to be looked at before a router with these gates is used.

    `where` names them. There is a caution for rows that are bit for bit equal, for measured rows
    that are zero, and for layers whose condition is above WORST_CONDITION.
    """
    twins: dict[tuple[tuple[int, ...], ...], list[int]] = {}
    alike: dict[int, float] = {}
    zeros: dict[int, list[int]] = {}
    for layer in sorted(gates):
        rows = gates[layer]
        zero = np.flatnonzero(np.linalg.norm(rows, axis=1) < _ZERO).tolist()
        groups = _equal_rows(rows)
        if zero and mode.startswith(("hidden", "router", "cheap")):
            for expert in zero:
                zeros.setdefault(expert, []).append(layer)
        elif groups:
            twins.setdefault(groups, []).append(layer)
        elif len(rows) <= rows.shape[1]:
            condition = float(np.linalg.cond(rows.astype(np.float64)))
            if condition > WORST_CONDITION:
                alike[layer] = condition
    return (
        *(_zero_caution(where, expert, layers) for expert, layers in zeros.items()),
        *(_twin_caution(where, groups, layers) for groups, layers in twins.items()),
        *([_alike_caution(where, alike, mode)] if alike else []),
    )


def _equal_rows(rows: NDArray[np.float32]) -> tuple[tuple[int, ...], ...]:
    """The moe_experts whose rows are bit for bit equal, group by group."""
    found: dict[bytes, list[int]] = {}
    for expert, row in enumerate(rows):
        found.setdefault(row.tobytes(), []).append(expert)
    return tuple(tuple(each) for each in found.values() if len(each) > 1)


def _zero_caution(where: str, expert: int, layers: Sequence[int]) -> Caution:
    return Caution(
        where,
        f"has a row of zeros for moe_expert {expert} in {spans(layers)}: its positive and negative"
        " prompts cancel out, and it is chosen only where all others fit worse than not at all",
        "Write other prompts",
    )


def _twin_caution(where: str, groups: Sequence[Sequence[int]], layers: Sequence[int]) -> Caution:
    told = "; ".join(" and ".join(map(str, group)) for group in groups)
    why = (
        "; in layer 0 the state of a last token is that token's embedding, so prompts that end in"
        " the same token are the same there"
        if 0 in layers
        else ""
    )
    return Caution(
        where,
        f"has equal rows for moe_experts {told} in {spans(layers)}, between which the router cannot"
        f" choose{why}",
        "End the prompts of each expert in another token, or set gate_mode: hidden_avg, which looks"
        " at all tokens",
    )


def _alike_caution(where: str, alike: dict[int, float], mode: str) -> Caution:
    worst = max(alike, key=lambda layer: alike[layer])
    other = "hidden" if mode == "hidden_avg" else "hidden_avg"
    return Caution(
        where,
        f"has rows that are nearly dependent in {spans(sorted(alike))} (condition up to"
        f" {alike[worst]:.3g}, in layer {worst}; above {WORST_CONDITION:g} the router hardly tells"
        " the moe_experts apart)",
        f"Write prompts that differ more, add negative_prompts, or try gate_mode: {other}",
    )


def spans(layers: Sequence[int]) -> str:
    """Return layers in words: `layer 0`, or `layers 0-3, 7`."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    texts = [str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs]
    return f"layer{'s' * (len(layers) > 1)} {', '.join(texts)}"
