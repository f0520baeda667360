"""The README.md of adapters that were made: what went in, how, and how to make them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from merge_ops.jobs.extraction_plan import Extraction
from merge_ops.provenance.hub_card import hub_id, is_hub_id
from merge_ops.provenance.markdown import fenced, in_heading, in_markdown
from merge_ops.recipes.document import recipe_document
from merge_ops.recipes.recipe import Recipe
from merge_ops.sources.lora.adapters import Adapter


def adapter_card(
    recipe: Recipe, adapters: Sequence[Adapter], base: str | None, factor_wise: bool
) -> str:
    """Return the README.md of an average of adapters: Markdown with front matter.

    It states the inputs, the digests and the recipe.
    """
    named = base is not None and (is_hub_id(base) or is_hub_id(f"hub/{base}"))  # as `gpt2` is
    front: dict[str, Any] = {"base_model": base} if named else {}
    front |= {"library_name": "peft", "tags": ["lora", "merge", "ronghe", recipe.merge_method]}
    inputs = [each.checkpoint for each in adapters]
    how = "factor by factor" if factor_wise else "exactly, with their factors side by side"
    document = recipe_document(recipe, {})
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        in_heading(recipe.name, [each.name for each in inputs]),
        "",
        f"LoRA adapters averaged {how}, made with Ronghe.",
        "",
        "| adapter | digest (BLAKE3 of its content) |",
        "|---|---|",
        *(f"| {in_markdown(each.name)} | `{each.digest or 'unknown'}` |" for each in inputs),
        "",
        "The recipe:",
        "",
        *fenced(yaml.safe_dump(document, sort_keys=False, allow_unicode=True).rstrip(), "yaml"),
    ]
    return "\n".join(lines) + "\n"


def extraction_card(plan: Extraction) -> str:
    """Return the README.md of an adapter that was extracted: the inputs, the digests, the ranks."""
    base_id = hub_id(plan.base.origin)
    front: dict[str, Any] = {"base_model": base_id} if base_id is not None else {}
    front |= {"library_name": "peft", "tags": ["lora", "ronghe"]}
    rows = (("base", plan.base), ("fine-tuned", plan.tuned))
    base, tuned = in_markdown(plan.base.name), in_markdown(plan.tuned.name)
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# A LoRA adapter of {tuned}",
        "",
        f"What {tuned} changes of {base}, as matrices of rank"
        f" {plan.settings.rank} at most, made with Ronghe (`ronghe extract-lora`).",
        "",
        "| role | model | digest (BLAKE3 of its content) |",
        "|---|---|---|",
        *(
            f"| {role} | {in_markdown(each.name)} | `{each.digest or 'unknown'}` |"
            for role, each in rows
        ),
    ]
    return "\n".join(lines) + "\n"
