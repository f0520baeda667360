"""The README.md of a merged checkpoint: what went in, how, and how to make it again.

A card says nothing of times, paths or machines: equal plans have equal cards, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.plans.plan import Output, Plan
from merge_ops.provenance.hub_card import CardFacts, CardInput, write_card
from merge_ops.provenance.licences import JOIN, effective
from merge_ops.provenance.reproduction import MakingStep, Part, Reproduction
from merge_ops.provenance.upstream_card import read_facts, stated_ids
from merge_ops.recipes.document import recipe_document


def model_card(plan: Plan, output: Output) -> str:
    """Return the README.md of an output: Markdown with Hugging Face front matter.

    It states the inputs, the digests, the licences, the recipe and the coefficient.
    """
    parts = [part for each in plan.checkpoints for part in _parts(each)]
    facts = {name: read_facts(model.source, model.files) for name, model in parts}
    licences = {name: stated_ids(each)[0] for name, each in facts.items()}
    document = recipe_document(plan.recipe, output.values)
    languages = {each.languages for each in facts.values()}
    card = CardFacts(
        title=plan.recipe.name,
        method=plan.method.name,
        method_source=plan.method.source,
        inputs=list(_inputs(plan, licences)),
        coefficient=output.coefficient,
        digest=output.digest,
        recipe=document,
        config=plan.config,
        licence=effective(licences),
        reproduction=_reproduction(plan, output, document),
        languages=next(iter(languages)) if len(languages) == 1 else (),
        excluded=plan.excluded,
        cautions=[str(caution) for caution in plan.cautions],
    )
    return write_card(card)


def _inputs(plan: Plan, licences: dict[str, tuple[str, ...]]) -> Iterator[CardInput]:
    """A row for each model; of a base with adapters one for the whole, and its parts by URI."""
    for checkpoint in (plan.base, *(each for each in plan.inputs if each is not plan.base)):
        role, digest = plan.role_of(checkpoint), plan.digest_of(checkpoint)
        parts = _parts(checkpoint)
        if len(parts) == 1:
            name, model = parts[0]
            stated = JOIN.join(licences[name]) or None
            yield CardInput(role, name, digest, model.origin, licence=stated)
            continue
        for position, (name, model) in enumerate(parts):
            what = "base" if position == 0 else "adapter"
            stated = JOIN.join(licences[name]) or None
            whole = f"{role}: {what}"
            yield CardInput(whole, name, plan.digest_of(model), model.origin, licence=stated)


def _reproduction(plan: Plan, output: Output, document: dict[str, Any]) -> Reproduction | None:
    """How it is made again; None where the digest of an input is not known."""
    if output.digest is None:
        return None
    models = {
        each.name: tuple(
            Part(str(plan.digest_of(model)), model.origin) for _, model in _parts(each)
        )
        for each in plan.checkpoints
    }
    return Reproduction((MakingStep(output.digest, document, models, plan.arithmetic),), _release())


def _parts(checkpoint: Checkpoint) -> list[tuple[str, Checkpoint]]:
    """A model and what it is called; of a base with adapters, each of them."""
    if not checkpoint.made_of:
        return [(checkpoint.name, checkpoint)]
    base, adapter = checkpoint.made_of
    own = checkpoint.name.removeprefix(f"{base.name}+")
    return [*_parts(base), (own, adapter)]


@cache
def _release() -> str | None:
    try:
        return version("ronghe")
    except PackageNotFoundError:
        return None
