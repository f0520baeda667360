"""Calibration texts, and file formats of what was measured on them: gates, statistics, orders."""

from merge_ops.calibration import gates, moe_orders, moe_statistics, texts
from merge_ops.calibration.degenerate import gate_cautions
from merge_ops.calibration.embedded_gates import embed_gates

__all__ = ["embed_gates", "gate_cautions", "gates", "moe_orders", "moe_statistics", "texts"]
