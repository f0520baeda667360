"""A plan as plain data, for people and for `ronghe plan --json`."""

from __future__ import annotations

import dataclasses
from typing import Any

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.plans.plan import GRADIENTS, Plan, plain_parameters


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as plain data, for people and for `ronghe plan --json`."""
    return {
        "recipe": plan.recipe.name,
        "method": plan.method.name,
        "base": _model_json(plan, plan.base) if plan.role_of(plan.base) == "base" else None,
        "config_from": plan.base.name,
        "inputs": [_model_json(plan, checkpoint) for checkpoint in plan.inputs],
        "seed": plan.recipe.seed,
        "windows": _windows_json(plan),
        "outputs": [dataclasses.asdict(output) for output in plan.outputs],
        "shards": [{"file": shard.file, "bytes": shard.size} for shard in plan.shards],
        "bytes_read": plan.bytes_read,
        "bytes_written": plan.bytes_written,
        "excluded": dict(plan.excluded),
        "vocabulary": plan.tokenizer.to_json() if plan.tokenizer else None,
        "notes": [GRADIENTS] if plan.recipe.has_gradient else [],
        "warnings": [str(caution) for caution in plan.cautions],
        "tensors": [
            {
                "name": step.output.name,
                "dtype": step.output.dtype,
                "shape": list(step.output.shape),
                "action": step.action,
                "parameters": [
                    plain_parameters(step.parameters, position)
                    for position in range(len(step.parameters))
                ],
            }
            for step in plan.steps
        ],
    }


def _windows_json(plan: Plan) -> dict[str, list[dict[str, Any]]] | None:
    """The steps of each coefficient's window, rising, with their weights."""
    window = plan.recipe.window
    if window is None:
        return None
    return {
        each.id: [
            {"step": step, "model": model, "weight": weight}
            for step, model, weight in window.rows(each.values)
        ]
        for each in plan.coefficients
    }


def _model_json(plan: Plan, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "location": checkpoint.source.location,
        "resolved": checkpoint.origin or [each.origin for each in checkpoint.made_of] or None,
        "digest": plan.digest_of(checkpoint),
        "tensors": len(checkpoint.tensors),
        "bytes": checkpoint.nbytes,
    }
