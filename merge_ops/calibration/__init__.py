"""The file format of statistics that were measured on texts: gates of a mixture of experts."""

from merge_ops.calibration.degenerate import gate_cautions
from merge_ops.calibration.gates import (
    FORMAT,
    Prompts,
    gate_key,
    gates_digest,
    metadata_of,
    read_gates,
    write_gates,
)

__all__ = [
    "FORMAT",
    "Prompts",
    "gate_cautions",
    "gate_key",
    "gates_digest",
    "metadata_of",
    "read_gates",
    "write_gates",
]
