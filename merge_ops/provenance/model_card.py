"""The README.md of a merged checkpoint: what went in, how, and how to make it again.

A card says nothing of times, paths or machines: equal plans have equal cards, to the byte.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import yaml

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.plans.plan import Output, Plan
from merge_ops.provenance.markdown import as_code, fenced, in_heading, in_markdown
from merge_ops.recipes.document import recipe_document


def model_card(plan: Plan, output: Output) -> str:
    """Return the README.md of an output: Markdown with Hugging Face front matter.

    It states the inputs, the digests, the recipe and the coefficient.
    """
    front: dict[str, Any] = {
        "base_model": _public_names(plan),
        "library_name": "transformers",
        "tags": ["merge", "ronghe", plan.method.name],
    }
    lines = [
        "---",
        _yaml(front),
        "---",
        "",
        in_heading(plan.recipe.name, [each.name for each in plan.inputs]),
        "",
        f"A merge by the method `{plan.method.name}` ({plan.method.source}), made with Ronghe.",
        "",
        "| role | model | digest (BLAKE3 of its content) |",
        "|---|---|---|",
        *_rows(plan),
        "",
        f"Coefficient: {as_code(output.coefficient)}  ",
        f"Plan digest: `{output.digest or 'not computed: inputs without digests'}`",
        "",
        "The recipe:",
        "",
        *fenced(_yaml(recipe_document(plan.recipe, output.values)), "yaml"),
    ]
    if plan.excluded:
        lines += ["", "Not written:", ""]
        lines += [
            f"- {as_code(name)}: {in_markdown(why)}" for name, why in sorted(plan.excluded.items())
        ]
    if plan.cautions:
        lines += ["", "Warnings:", "", *(f"- {in_markdown(caution)}" for caution in plan.cautions)]
    return "\n".join(lines) + "\n"


def _yaml(document: Any) -> str:
    return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip()


def _public_names(plan: Plan) -> list[str]:
    """The models as the Hub knows them, where that is known; a folder's last name else."""
    parts = [part for each in plan.checkpoints for part in _parts(each)]
    return list(dict.fromkeys(_public_name(name, origin) for name, origin in parts))


def _public_name(name: str, origin: str | None) -> str:
    scheme, _, rest = (origin or "").partition("://")
    return rest.partition("@")[0] if scheme == "hf" else PurePosixPath(name).name or name


def _named(checkpoint: Checkpoint) -> str:
    """A model as a reader can find it: by its public URI at its commit, or as it was named."""
    return "+".join(origin or name for name, origin in _parts(checkpoint))


def _parts(checkpoint: Checkpoint) -> list[tuple[str, str | None]]:
    """The name and the origin of a model; of a base with adapters, those of each."""
    if not checkpoint.made_of:
        return [(checkpoint.name, checkpoint.origin)]
    base, adapter = checkpoint.made_of
    own = checkpoint.name.removeprefix(f"{base.name}+")
    return [*_parts(base), (own, adapter.origin)]


def _rows(plan: Plan) -> list[str]:
    role = plan.role_of(plan.base)
    name = in_markdown(_named(plan.base))
    rows = [f"| {role} | {name} | `{plan.digest_of(plan.base) or 'unknown'}` |"]
    for checkpoint in plan.inputs:
        if checkpoint is not plan.base:
            digest = plan.digest_of(checkpoint) or "unknown"
            name = in_markdown(_named(checkpoint))
            rows.append(f"| {plan.role_of(checkpoint)} | {name} | `{digest}` |")
    return rows
