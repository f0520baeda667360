"""May models be merged, and does the result answer as they do? What must agree, and what an output
must hold.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.plans.agreement import expected_tensors

__all__ = ["expected_tensors"]
