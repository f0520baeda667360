"""Calibration texts, and file formats of what was measured on them: gates, statistics."""

from merge_ops.calibration import moe_statistics, texts
from merge_ops.calibration.degenerate import gate_cautions
from merge_ops.calibration.embedded_gates import embed_gates
from merge_ops.calibration.gates import (
    FITTED,
    Prompts,
    gate_key,
    gates_digest,
    read_gates,
    write_gates,
)

__all__ = [
    "FITTED",
    "Prompts",
    "embed_gates",
    "gate_cautions",
    "gate_key",
    "gates_digest",
    "moe_statistics",
    "read_gates",
    "texts",
    "write_gates",
]
