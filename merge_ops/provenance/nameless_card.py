"""The README.md of a checkpoint in a store that several people share: what went in, by digest.

It says nothing that the plan's digest does not cover: no name of a model, a recipe or a
coefficient, no licence and no source. Those are what one catalog says of a content, and another may
say otherwise. So whoever merges first, equal digests are equal files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import yaml

from merge_ops.plans.plan import Output, Plan, plain_parameters
from merge_ops.provenance.markdown import as_code

MOST_ROWS = 40
"""Groups of tensors with parameters of their own; a gradient has one for each layer."""


def nameless_card(plan: Plan, output: Output) -> str:
    """Return the README.md of an output, made of nothing but what its digest stands for."""
    front = {"library_name": "transformers", "tags": ["merge", "ronghe", plan.method.name]}
    seed = [f"Seed: `{plan.recipe.seed}`  "] if plan.method.random else []
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False).rstrip(),
        "---",
        "",
        f"# A merge by {plan.method.name}",
        "",
        f"Made by the method `{plan.method.name}` ({plan.method.source}), with Ronghe.",
        "",
        "| role | digest (BLAKE3 of the model's content) |",
        "|---|---|",
        *(f"| {role} | `{digest}` |" for role, digest in _inputs(plan)),
        "",
        *seed,
        f"Plan digest: `{output.digest or 'not computed: inputs without digests'}`",
        "",
        "What the models and the recipe are called, and their licences, is what a catalog says:",
        "the name that points here says it too (`ronghe refs`).",
        "",
        "| parameters | tensors |",
        "|---|---|",
        *_parameters(plan, output),
    ]
    if plan.excluded:
        lines += ["", "Not written:", "", *(f"- {as_code(name)}" for name in sorted(plan.excluded))]
    return "\n".join(lines) + "\n"


def _inputs(plan: Plan) -> Iterator[tuple[str, str]]:
    """What gives the config, and then each content in the order in which tensors come from it."""
    yield "gives config and tokenizer", plan.digest_of(plan.base) or "unknown"
    parts = [
        part.checkpoint
        for step in plan.steps
        for source in step.planned.sources
        for part in source.parts
    ]
    digests = dict.fromkeys(plan.digest_of(each) or "unknown" for each in parts)
    yield from (("gives tensors", digest) for digest in digests)


def _parameters(plan: Plan, output: Output) -> Iterator[str]:
    position = [each.id for each in plan.coefficients].index(output.coefficient)
    alike: dict[str, list[str]] = {}
    for step in plan.steps:
        values = plain_parameters(step.planned.parameters, position)
        words = json.dumps(values, ensure_ascii=False) if values else "copied"
        alike.setdefault(words, []).append(step.output.name)
    for words, names in list(alike.items())[:MOST_ROWS]:
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        yield f"| {as_code(words)} | {as_code(names[0])}{others} |"
    if len(alike) > MOST_ROWS:
        yield f"| … | {len(alike) - MOST_ROWS} more rows |"
