"""The licences that models state, and those that follow for what is made of them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from assets.site.facts import CatalogFacts
from assets.site.view import CheckpointView, LicenceView, ModelView
from assets.work.upstream.model_facts import facts_by_digest
from merge_ops.provenance.licences import effective
from merge_ops.provenance.upstream_card import stated_ids

if TYPE_CHECKING:
    from merge_ops.provenance.licences import EffectiveLicence
    from resources.store import ArtifactStore

MOST_LISTED = 2000
"""Models and merges whose licences are listed: of more, the merges that come last are left out."""


def licence_views(
    store: "ArtifactStore",
    facts: CatalogFacts,
    models: Iterable[ModelView],
    checkpoints: Iterable[CheckpointView],
) -> tuple[tuple[LicenceView, ...], int]:
    """Tell the licence of every model, and of every set of models that a recipe merges.

    They are what models.yaml states and what the models' own cards and licence files do, as
    `ronghe lineage` and a promotion read them. Returns them with the number of those left out.
    """
    checkpoints = list(checkpoints)
    digests = {each.name: each.digest for each in models}
    wanted = {*digests.values(), *(d for each in checkpoints for d in each.models.values())}
    own = facts_by_digest(store, sorted(wanted - {""}))

    def stated(name: str, digest: str) -> tuple[str, ...]:
        entry = facts.models.get(name)
        return stated_ids(own.get(digest), entry.licence if entry is not None else None)[0]

    found = [
        _view(name, "model", effective({name: stated(name, digests.get(name, ""))}))
        for name in facts.models
    ]
    known: dict[tuple[tuple[str, str], ...], EffectiveLicence] = {}
    merged: dict[tuple[str, str], Mapping[str, str]] = {}
    for each in checkpoints:
        merged.setdefault((each.recipe, each.experts), each.models)
    for (recipe, experts), inputs in merged.items():
        key = tuple(sorted(inputs.items()))
        if not key:
            continue
        if key not in known:
            known[key] = effective({name: stated(name, digest) for name, digest in key})
        found.append(_view(f"{recipe} {experts}".strip(), "merge", known[key], recipe))
    return tuple(found[:MOST_LISTED]), max(0, len(found) - MOST_LISTED)


def _view(subject: str, kind: str, licence: "EffectiveLicence", recipe: str = "") -> LicenceView:
    inputs = tuple((name, ", ".join(ids)) for name, ids in licence.inputs.items())
    return LicenceView(
        subject=subject,
        kind=kind,
        page=("recipe", recipe) if recipe else ("model", subject),
        licence=licence.licence.id,
        called=licence.licence.name,
        rank=licence.licence.rank,
        inputs=inputs if kind == "merge" else (),
        deciding=licence.decided_by if kind == "merge" else (),
        duties=tuple(map(str, licence.duties)),
        conflicts=tuple(f"{each.id}: {each.because}" for each in licence.conflicts),
    )
