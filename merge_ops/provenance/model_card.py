"""The README.md of a merged checkpoint or adapter: what went in, how, and how to make it again.

A card says nothing of times, paths or machines: equal plans have equal cards, to the byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from merge_ops.plans.plan import Output, Plan
from merge_ops.recipes.recipe import Parameters, Recipe, Section
from merge_ops.sources.adapters import Adapter


def model_card(plan: Plan, output: Output) -> str:
    """Markdown with Hugging Face front matter: inputs, digests, recipe, coefficient."""
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
            _recipe(plan.recipe, output.values), sort_keys=False, allow_unicode=True
        ).rstrip(),
        "```",
    ]
    if plan.excluded:
        lines += ["", "Not written:", ""]
        lines += [f"- `{name}`: {why}" for name, why in sorted(plan.excluded.items())]
    if plan.warnings:
        lines += ["", "Warnings:", "", *(f"- {warning}" for warning in plan.warnings)]
    return "\n".join(lines) + "\n"


def adapter_card(
    recipe: Recipe, adapters: Sequence[Adapter], base: str | None, factor_wise: bool
) -> str:
    """The same for an average of adapters."""
    front: dict[str, Any] = {"base_model": base} if base else {}
    front |= {"library_name": "peft", "tags": ["lora", "merge", "ronghe", recipe.merge_method]}
    inputs = [each.checkpoint for each in adapters]
    how = "factor by factor" if factor_wise else "exactly, with their factors side by side"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {recipe.name}: {' + '.join(each.name for each in inputs)}",
        "",
        f"LoRA adapters averaged {how}, made with Ronghe.",
        "",
        "| adapter | digest (BLAKE3 of its content) |",
        "|---|---|",
        *(f"| {each.name} | `{each.digest or 'unknown'}` |" for each in inputs),
        "",
        "The recipe:",
        "",
        "```yaml",
        yaml.safe_dump(_recipe(recipe, {}), sort_keys=False, allow_unicode=True).rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _rows(plan: Plan) -> list[str]:
    rows = [f"| base | {plan.base.name} | `{plan.base.digest or 'unknown'}` |"]
    for checkpoint in plan.inputs:
        if checkpoint is not plan.base:
            rows.append(f"| expert | {checkpoint.name} | `{checkpoint.digest or 'unknown'}` |")
    return rows


def _section(section: Section) -> dict[str, Any]:
    """`models` or `slices`, and the module's own parameters."""
    table: dict[str, Any] = {}
    if section.models:
        table["models"] = [_with(each.parameters, model=each.model) for each in section.models]
    if section.slices:
        table["slices"] = [
            _with(
                entry.parameters,
                **({"base_model": entry.base_model} if entry.base_model else {}),
                sources=[
                    _with(each.parameters, model=each.model, layer_range=list(each.layer_range))
                    for each in entry.sources
                ],
            )
            for entry in section.slices
        ]
    return _with(section.parameters, **table)


def _with(parameters: Parameters, **table: Any) -> dict[str, Any]:
    return {**table, "parameters": dict(parameters)} if parameters else table


def _recipe(recipe: Recipe, values: Parameters) -> dict[str, Any]:
    """The recipe of this one coefficient, as mergekit writes it."""
    document: dict[str, Any] = {"merge_method": recipe.merge_method}
    if recipe.base_model:
        document["base_model"] = recipe.base_model
    if recipe.modules:
        document["modules"] = {name: _section(each) for name, each in recipe.modules.items()}
    else:
        document |= _section(recipe.section)
    parameters = {**recipe.parameters, **values}
    if parameters:
        document["parameters"] = parameters
    if recipe.dtype:
        document["dtype"] = recipe.dtype
    if recipe.out_dtype:
        document["out_dtype"] = recipe.out_dtype
    if recipe.tokenizer:
        document |= recipe.tokenizer.written
    if recipe.chat_template:
        document["chat_template"] = recipe.chat_template
    if recipe.method.random:
        document["seed"] = recipe.seed
    return document
