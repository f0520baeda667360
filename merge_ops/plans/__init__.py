"""A recipe resolved against real headers: plans, compatibility, reuse, resume."""

from typing import TYPE_CHECKING

from merge_ops.plans.compatibility import check_compatible
from merge_ops.plans.plan import GRADIENTS, Output, Plan, plan_merge
from merge_ops.plans.stage_plans import StagePlans, plan_stages

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.plans import plan_json, resume, reuse

__all__ = [
    "GRADIENTS",
    "Output",
    "Plan",
    "StagePlans",
    "check_compatible",
    "plan_json",
    "plan_merge",
    "plan_stages",
    "resume",
    "reuse",
]
