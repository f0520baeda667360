"""Verbs on whole models: merging, averaging adapters, extraction, packing, verification."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.jobs import (
        adapter_agreement,
        adapter_average,
        assembly,
        emr_masks,
        extraction_plan,
        lora_extraction,
        packing,
        restoring,
        statistics,
        verification,
    )

__all__ = [
    "adapter_agreement",
    "adapter_average",
    "assembly",
    "emr_masks",
    "extraction_plan",
    "lora_extraction",
    "packing",
    "restoring",
    "statistics",
    "verification",
]
