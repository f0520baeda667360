"""Withdrawing a model, and taking that back: the marks, and what follows. Knows no Dagster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.records.announcing import event_of
from assets.work.records.demotion import Demotion, crowned, settle
from assets.work.records.stored_names import LOADABLE, label_of, named_refs, resolve_name
from assets.work.records.withdrawal import Withdrawal, marked, rests_on, versions_of, withdrawals
from assets.work.upstream.packed_models import MODEL
from resources.errors import MissingArtifactError

if TYPE_CHECKING:
    from merge_ops.stream import StreamSettings
    from resources.store import ArtifactStore, Ref


@dataclass(frozen=True)
class Touched:
    """A name that a withdrawal touches; `left` is what is withdrawn behind it now."""

    name: str
    asset: str
    partition: str | None
    digest: str
    left: tuple[Withdrawal, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a withdrawal: the versions that it marks, what rests on them, who was demoted.

    `changed` is False where everything was marked so before. `standing` are recipes whose champion
    rests on it and stays, because it only warns. `others` are further catalogs of the store; their
    champions follow at their next refresh.
    """

    name: str
    digests: tuple[str, ...]
    changed: bool
    touched: tuple[Touched, ...]
    demotions: tuple[Demotion, ...] = ()
    standing: tuple[str, ...] = ()
    others: tuple[str, ...] = ()
    events: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {
            "name": self.name,
            "digests": list(self.digests),
            "changed": self.changed,
            "touched": [
                {"name": each.name, "digest": each.digest, "withdrawn": [*map(str, each.left)]}
                for each in self.touched
            ],
            "demotions": [
                {"recipe": each.recipe, "before": each.before, "champion": each.champion}
                for each in self.demotions
            ],
            "standing": list(self.standing),
            "other_catalogs": list(self.others),
        }


def withdraw(
    store: "ArtifactStore",
    text: str,
    because: str,
    warn_only: bool = False,
    stream: "StreamSettings | None" = None,
    suites: Mapping[str, str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Mark a model as withdrawn, by all versions that its name had, and demote what rests on it.

    The marks come first, one conditional write each; run again, it goes on where it was stopped.
    `suites` are those of the recipes, for the events; `tell` hears of each champion before it is
    written. Raises MissingArtifactError where the name stands for no model, StoreFailureError where
    others write the same mark or champion all the time.
    """
    name, digests = _meant(store, text)
    changed = [store.marks.withdraw(each, because, name, warn_only) for each in digests]
    touched, demotions = _touched(store, digests), list[Demotion]()
    standing: list[str] = []
    for recipe in crowned(store):
        ref = names.ref_of(store, names.champion(recipe))
        if ref is None or ref.digest not in {each.digest for each in touched}:
            continue
        if tell is not None:
            tell(f"the champion of {recipe} rests on it")
        demotion = settle(store, recipe, stream)
        if demotion is None:
            standing.append(recipe)
        else:
            demotions.append(demotion)
    others = tuple(each for each in store.upkeep.catalogs() if each != store.namespace.name)
    events = tuple(
        event_of_demotion(store, each, (suites or {}).get(each.recipe, "")) for each in demotions
    )
    return Outcome(
        name, tuple(digests), any(changed), touched, tuple(demotions), tuple(standing), others,
        events,
    )  # fmt: skip


def take_back(store: "ArtifactStore", text: str, because: str) -> Outcome:
    """Note that a model is withdrawn no more. No champion changes: a refresh asks the gate anew.

    Raises MissingArtifactError where the name stands for no model, or none that is withdrawn.
    """
    name, digests = _meant(store, text)
    found = withdrawals(store)
    own = [each for each in digests if each in found]
    if not own:
        known = ", ".join(sorted({each.called or each.digest[:12] for each in found.values()}))
        raise MissingArtifactError(
            f"'{text}' is not withdrawn in artifact store {store.uri}; withdrawn are"
            f" {known or 'none'}"
        )
    before = _touched(store, own)
    for each in own:
        store.marks.take_back(each, because, name)
    resting = rests_on(store, [each.digest for each in before])
    touched = tuple(
        Touched(e.name, e.asset, e.partition, e.digest, tuple(resting.get(e.digest, ())))
        for e in before
    )
    return Outcome(name, tuple(own), True, touched)


def event_of_demotion(
    store: "ArtifactStore", demotion: Demotion, suite: str = ""
) -> dict[str, Any]:
    """Return what a webhook is told of a demotion."""
    ref = names.history_of(store, names.champion(demotion.recipe))
    return event_of(
        "demotion",
        demotion.recipe,
        suite,
        store.namespace.name,
        candidate=None,
        champion=demotion.champion,
        before=demotion.before,
        reasons=(demotion.because,),
        because=demotion.because,
        by=ref.current.by if ref is not None else None,
    )


def _meant(store: "ArtifactStore", text: str) -> tuple[str, list[str]]:
    named = resolve_name(store, text)
    if named.kind not in LOADABLE:
        raise MissingArtifactError(
            f"'{text}' is a {named.kind} in {store.uri}, and only models and checkpoints are"
            " withdrawn; name what it was made from (`ronghe ls`)"
        )
    model = named.partition if named.asset == MODEL else None
    known = store.marks.withdrawn().get(named.digest)
    called = named.name if named.asset is not None else known.called if known is not None else ""
    return called or text, versions_of(store, named.digest, model)


def _touched(store: "ArtifactStore", digests: Sequence[str]) -> tuple[Touched, ...]:
    """The names of the catalog that rest on any of some withdrawn contents."""
    resting, own = marked(store), set(digests)
    concerned = {
        digest: tuple(found)
        for digest, found in resting.items()
        if any(each.digest in own for each in found)
    }
    touched = [
        _of(ref, concerned[ref.digest]) for ref in named_refs(store) if ref.digest in concerned
    ]
    order = (MODEL, names.CHAMPION, names.STEP, names.MERGED_CHECKPOINT)
    rank = {kind: place for place, kind in enumerate(order)}
    return tuple(sorted(touched, key=lambda e: (rank.get(names.kind_of(e.asset), 9), e.name)))


def _of(ref: "Ref", left: tuple[Withdrawal, ...]) -> Touched:
    asset = names.present_name(ref.asset)
    return Touched(label_of(asset, ref.partition), asset, ref.partition, ref.digest, left)
