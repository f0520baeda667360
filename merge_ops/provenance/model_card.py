"""The README.md of a merged checkpoint: what went in, how, and how to make it again.

A card says nothing of times, paths or machines: equal plans have equal cards, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.plans.plan import Output, Plan
from merge_ops.plans.result_files import ResultFiles
from merge_ops.provenance.hub_card import CardFacts, CardInput, write_card
from merge_ops.provenance.licences import JOIN, effective
from merge_ops.provenance.reproduction import MakingStep, Part, Reproduction
from merge_ops.provenance.upstream_card import read_facts, stated_ids
from merge_ops.recipes.document import recipe_document


def model_card(plan: Plan, output: Output) -> str:
    """Return the README.md of an output: Markdown with Hugging Face front matter.

    It states the inputs, the digests, the licences, the recipe and the coefficient.
    """
    sources = _sources(plan)
    facts = {name: read_facts(model.source, model.files) for name, model in sources.items()}
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
        reproduction=_reproduction(plan, output),
        languages=next(iter(languages)) if len(languages) == 1 else (),
        excluded=plan.excluded,
        cautions=[str(caution) for caution in plan.cautions],
        sources=[CardInput("", name, None, model.origin) for name, model in sources.items()],
    )
    return write_card(card)


def _sources(plan: Plan) -> dict[str, Checkpoint]:
    """Every model that all is made of, by its name: what earlier steps made is followed down."""
    found: dict[str, Checkpoint] = {}
    for name, model in (part for each in plan.checkpoints for part in _parts(each)):
        if isinstance(model.source, ResultFiles):
            found |= _sources(model.source.plan)
        else:
            found[name] = model
    return found


def _inputs(plan: Plan, licences: Mapping[str, tuple[str, ...]]) -> Iterator[CardInput]:
    """A row for each model; of a base with adapters one for each of them."""
    for checkpoint in (plan.base, *_beside_base(plan)):
        role, parts = plan.role_of(checkpoint), _parts(checkpoint)
        for position, (name, model) in enumerate(parts):
            if len(parts) > 1:
                what = "base" if position == 0 else "adapter"
                role = f"{plan.role_of(checkpoint)}: {what}"
            if isinstance(model.source, ResultFiles):
                below = {each: licences[each] for each in _sources(model.source.plan)}
                stated = effective(below).licence.id
            else:
                stated = JOIN.join(licences[name])
            digest = plan.digest_of(model)
            yield CardInput(role, name, digest, model.origin, licence=stated or None)


def _beside_base(plan: Plan) -> Iterator[Checkpoint]:
    """Every other model that gives weights."""
    yield from (each for each in plan.inputs if each is not plan.base)
    yield from plan.beside


def _reproduction(plan: Plan, output: Output) -> Reproduction | None:
    """How it is made again; None where the digest of an input is not known."""
    if output.digest is None:
        return None
    return Reproduction(tuple(_steps(plan, output, set())), _release())


def _steps(plan: Plan, output: Output, told: set[str]) -> Iterator[MakingStep]:
    """The steps before this one, each once, and then this one."""
    models: dict[str, tuple[Part, ...]] = {}
    for checkpoint in plan.checkpoints:
        parts = _parts(checkpoint)
        models[checkpoint.name] = tuple(
            Part(str(plan.digest_of(model)), model.origin) for _, model in parts
        )
        for _, model in parts:
            if isinstance(model.source, ResultFiles):
                earlier = model.source.plan.with_digests(plan.digests)
                if earlier.outputs[0].digest not in told:
                    yield from _steps(earlier, earlier.outputs[0], told)
    digest = str(output.digest)
    told.add(digest)
    document = recipe_document(plan.recipe, output.values)
    yield MakingStep(digest, document, models, plan.arithmetic)


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
