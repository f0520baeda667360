"""What the manifest of a merged checkpoint says of itself. Knows no Dagster.

Where it comes from, by digest; how it is made, which is enough to make it again; under which
licences its inputs say they are; and what it cost. All but the cost follows from the plan's digest,
so whoever merges first, equal digests have equal manifests; and neither is a part of any digest. An
earlier release's manifest lacks some of it: readers ask with `.get`, and say what is not known.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from merge_ops.checkpoints import Checkpoint
    from merge_ops.jobs.assembly import MergeReport
    from merge_ops.plans import Plan
    from merge_ops.provenance.licences import EffectiveLicence
    from merge_ops.provenance.upstream_card import CardFacts
    from merge_ops.stream import StreamSettings

ANCESTRY, MAKING, COST, LICENCES = "ancestry", "making", "cost", "licences"
"""Fields of a manifest: direct parents, how it is made, what that took, and each input's licence
ids as its own card and licence files state them, by digest."""
TEXTS = "calibration_texts"
"""The calibration texts that statistics of the merge were measured on; no method needs one yet."""


def manifest_fields(plan: "Plan") -> dict[str, Any]:
    """Return what a manifest says of a merge: nothing that the plan's digest does not cover.

    What its models are called, and what a catalog says of their licences, is said by the ref
    (`merging.point_at`).
    """
    return {
        "plan": {
            "method": plan.method.name,
            "method_version": plan.method.version,
            "arithmetic": plan.arithmetic,
            "seed": plan.recipe.seed if plan.method.random else None,
            "excluded": sorted(plan.excluded),
        },
        "tensors": [step.output.name for step in plan.steps],
        "inputs": sorted({digest for each in plan.checkpoints for digest in _digests(each)}),
        LICENCES: _licences(plan),
        TEXTS: [],
        "versions": {name: installed_version(name) for name in ("ronghe", "torch")},
    }


def output_fields(
    plan: "Plan", models: Mapping[str, "Checkpoint"]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Return digest and manifest fields of every coefficient of a plan, written or not.

    `models` are those that the plan's recipe names.
    """
    from merge_ops.recipes.document import nameless_document

    drawn_by = {each.name for each in plan.inputs} if plan.method.random else set[str]()
    fields = manifest_fields(plan)
    made: dict[str, tuple[str, dict[str, Any]]] = {}
    for position, output in enumerate(plan.outputs):
        document, names = nameless_document(plan.recipe, output.values, drawn_by)
        making = {
            "recipe": document,
            "models": {numbered: _parts(models[name]) for name, numbered in names.items()},
            "coefficient": output.coefficient,
            "bytes": sum(shard.size for shard in plan.shards),
        }
        parents = list(_parents(plan, position, [models[name] for name in names]))
        own = {**fields, ANCESTRY: parents, MAKING: making}
        made[output.coefficient] = str(output.digest), own
    return made


def cost_fields(report: "MergeReport", settings: "StreamSettings", outputs: int) -> dict[str, Any]:
    """Return what a merge cost, as a manifest says it: seconds, bytes of weights, GPU-seconds.

    They are those of the whole read, which made so many `outputs` together. GPU-seconds are the
    seconds that one was held.
    """
    from merge_ops.stream import choose_device

    seconds = round(report.seconds, 3)
    on_gpu = choose_device(settings.device) != "cpu"
    return {
        COST: {
            "seconds": seconds,
            "bytes_read": report.bytes_read,
            "bytes_written": report.bytes_written,
            "gpu_seconds": seconds if on_gpu else 0.0,
            "outputs": outputs,
        }
    }


def weights_of(plan: "Plan", position: int) -> dict[str, float]:
    """Return the weight of each model, where it is one number for every tensor that is merged.

    `position` is that of the coefficient. A gradient, or a method without weights, gives none.
    """
    found: dict[str, set[float]] = {}
    seen: set[tuple[int, tuple[str, ...]]] = set()
    for step in (each.planned for each in plan.steps):
        if step.action != "merge":
            continue
        models = tuple([source.model for source in step.inputs])
        parameters = step.parameters[position]
        if (id(parameters), models) in seen:
            continue
        seen.add((id(parameters), models))
        weights = getattr(parameters, "weight", None)
        if isinstance(weights, tuple) and len(weights) == len(models):
            for model, weight in zip(models, weights, strict=True):
                found.setdefault(model, set()).add(float(weight))
    return {model: weights.pop() for model, weights in found.items() if len(weights) == 1}


def _parents(plan: "Plan", position: int, named: list["Checkpoint"]) -> Iterator[dict[str, Any]]:
    """The direct parents, in the order of the plan; of a base with adapters, each part."""
    weights, told = weights_of(plan, position), set[tuple[str, str]]()
    merged = {each.name for each in plan.checkpoints}
    others = [each for each in named if each.name not in merged]
    for checkpoint in (*plan.checkpoints, *others):
        relation = "base" if plan.role_of(checkpoint) == "base" else "expert"
        if checkpoint.name not in merged:
            relation = "tokenizer"
        digests = _parts(checkpoint)
        for place, digest in enumerate(digests):
            if len(digests) > 1:
                relation = "base" if place == 0 else "adapter"
            if (digest, relation) in told:
                continue
            told.add((digest, relation))
            last = place == len(digests) - 1
            weight = weights.get(checkpoint.name) if last else None
            yield {"digest": digest, "relation": relation, "weight": weight}


def _licences(plan: "Plan") -> dict[str, list[str]]:
    """The licence ids that each input itself states, by its digest; none of what states nothing."""
    stated: dict[str, list[str]] = {}
    for checkpoint in plan.checkpoints:
        for part in _stack(checkpoint):
            if part.digest is not None and (ids := _facts(part).licence_ids):
                stated[part.digest] = list(ids)
    return stated


def licence_of(
    models: Iterable["Checkpoint"], catalog: Mapping[str, str | None]
) -> "EffectiveLicence":
    """Return what holds for a merge of models: their own statements, and those of a catalog.

    `catalog` has licences by the models' names. Of a base with adapters each part counts.
    """
    from merge_ops.provenance.licences import effective
    from merge_ops.provenance.upstream_card import stated_ids

    parts = {part.name: part for each in models for part in _stack(each)}
    return effective(
        {name: stated_ids(_facts(each), catalog.get(name))[0] for name, each in parts.items()}
    )


_known: dict[str, "CardFacts"] = {}
_MOST_KNOWN = 4096
"""Models whose statement a process keeps: some kilobyte each."""


def _facts(model: "Checkpoint") -> "CardFacts":
    """What a model says of itself, read once a process for each content."""
    from merge_ops.provenance.upstream_card import read_facts

    digest = model.digest
    if digest is None:
        return read_facts(model.source, model.files)
    if digest not in _known:
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[digest] = read_facts(model.source, model.files)
    return _known[digest]


def _stack(checkpoint: "Checkpoint") -> list["Checkpoint"]:
    if not checkpoint.made_of:
        return [checkpoint]
    return [part for each in checkpoint.made_of for part in _stack(each)]


def _digests(checkpoint: "Checkpoint") -> list[str]:
    """The digest of a model; of a base with adapters, those of each too."""
    parts = [digest for each in checkpoint.made_of for digest in _digests(each)]
    return [*([checkpoint.digest] if checkpoint.digest else []), *parts]


def _parts(checkpoint: "Checkpoint") -> list[str]:
    """The digest of a model as it is stored; of a base with adapters, those of each."""
    return [str(each.digest) for each in _stack(checkpoint)]


def this_release() -> str | None:
    """Return the installed version of Ronghe; None where it runs from a bare folder."""
    return installed_version("ronghe")


@cache
def installed_version(name: str) -> str | None:
    """Return the version of a package; None when it runs from a folder that is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
