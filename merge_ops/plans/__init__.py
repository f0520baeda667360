"""A recipe resolved against real headers: plans, compatibility, reuse, resume."""

from typing import TYPE_CHECKING

from merge_ops.plans.agreement.compatibility import check_compatible
from merge_ops.plans.plan import Plan
from merge_ops.plans.planning import plan_merge
from merge_ops.plans.step_plans import StepPlans, plan_steps

if TYPE_CHECKING:  # modules, imported when they are asked for
    from merge_ops.plans import plan, plan_json, resume, reuse

__all__ = [
    "Plan",
    "StepPlans",
    "check_compatible",
    "plan",
    "plan_json",
    "plan_merge",
    "plan_steps",
    "resume",
    "reuse",
]
