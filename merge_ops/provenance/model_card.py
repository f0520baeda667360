"""The README.md of a merged checkpoint: what went in, how, and how to make it again.

A card says nothing of times, paths or machines: equal plans have equal cards, to the byte.
"""

from __future__ import annotations

from typing import Any

import yaml

from merge_ops.plans.plan import Output, Plan
from merge_ops.recipes.document import recipe_document


def model_card(plan: Plan, output: Output) -> str:
    """Return the README.md of an output: Markdown with Hugging Face front matter.

    It states the inputs, the digests, the recipe and the coefficient.
    """
    front: dict[str, Any] = {
        "base_model": list(plan.model_names),
        "library_name": "transformers",
        "tags": ["merge", "ronghe", plan.method.name],
    }
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {plan.recipe.name}: {' + '.join(each.name for each in plan.inputs)}",
        "",
        f"A merge by the method `{plan.method.name}` ({plan.method.source}), made with Ronghe.",
        "",
        "| role | model | digest (BLAKE3 of its content) |",
        "|---|---|---|",
        *_rows(plan),
        "",
        f"Coefficient: `{output.coefficient}`  ",
        f"Plan digest: `{output.digest or 'not computed: inputs without digests'}`",
        "",
        "The recipe:",
        "",
        "```yaml",
        yaml.safe_dump(
            recipe_document(plan.recipe, output.values), sort_keys=False, allow_unicode=True
        ).rstrip(),
        "```",
    ]
    if plan.excluded:
        lines += ["", "Not written:", ""]
        lines += [f"- `{name}`: {why}" for name, why in sorted(plan.excluded.items())]
    if plan.cautions:
        lines += ["", "Warnings:", "", *(f"- {caution}" for caution in plan.cautions)]
    return "\n".join(lines) + "\n"


def _rows(plan: Plan) -> list[str]:
    role = plan.role_of(plan.base)
    rows = [f"| {role} | {plan.base.name} | `{plan.digest_of(plan.base) or 'unknown'}` |"]
    for checkpoint in plan.inputs:
        if checkpoint is not plan.base:
            digest = plan.digest_of(checkpoint) or "unknown"
            rows.append(f"| {plan.role_of(checkpoint)} | {checkpoint.name} | `{digest}` |")
    return rows
