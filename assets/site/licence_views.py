"""The licences that models state, and those that follow for what is made of them."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from assets.site.facts import CatalogFacts
from assets.site.view import CheckpointView, LicenceView
from merge_ops.provenance.licences import effective

if TYPE_CHECKING:
    from merge_ops.provenance.licences import EffectiveLicence

MOST_LISTED = 2000
"""Models and merges whose licences are listed: of more, the merges that come last are left out."""


def licence_views(
    facts: CatalogFacts, checkpoints: Iterable[CheckpointView]
) -> tuple[tuple[LicenceView, ...], int]:
    """Tell the licence of every model, and of every set of models that a recipe merges.

    Returns them with the number of those that are left out.
    """
    stated = {name: model.licence for name, model in facts.models.items()}
    found = [_view(name, "model", effective({name: stated[name]})) for name in stated]
    known: dict[tuple[str, ...], EffectiveLicence] = {}
    merged: dict[tuple[str, str], Mapping[str, str]] = {}
    for each in checkpoints:
        merged.setdefault((each.recipe, each.experts), each.models)
    for (recipe, experts), models in merged.items():
        key = tuple(sorted(models))
        if not key:
            continue
        if key not in known:
            known[key] = effective({name: stated.get(name) for name in key})
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
