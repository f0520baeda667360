"""One name of the catalog from all sides, for people. Knows no Dagster."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.records.champion_history import champion_state
from assets.work.records.listing import bytes_in
from assets.work.records.stored_names import LOADABLE, Named, label_of, named_refs, resolve_name
from assets.work.records.withdrawal import Withdrawal, rests_on
from assets.work.scoring.scoring import SCORES, open_scores
from assets.work.upstream.packed_models import MODEL, PACKED
from eval_ops.errors import ScoresError
from resources.errors import DamagedArtifactError

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref


@dataclass(frozen=True)
class Shown:
    """A content and what is known of it. `scores` are means of suites in percent, with intervals.

    `called` are all names of the catalog that point to it; `champion_of` the recipes whose champion
    it is; `models` what went in, by the names of then.
    """

    name: str
    digest: str
    kind: str
    called: tuple[str, ...]
    champion_of: tuple[str, ...]
    nbytes: int | None
    kept: str
    location: str
    made: Mapping[str, Any]
    models: Mapping[str, str]
    licences: Mapping[str, str | None]
    source: str | None
    scores: Mapping[str, tuple[float, float, float]]
    at: str
    by: str | None
    stale: tuple[str, ...]
    withdrawn: tuple[Withdrawal, ...]

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what a person reads, as pairs of a word and a text."""
        from merge_ops.errors import shown

        yield "kind", f"{self.kind}, {self.kept}"
        if self.nbytes is not None:
            yield "size", f"{self.nbytes / 1e6:,.1f} MB"
        yield "at", self.location
        if self.called:
            yield "called", ", ".join(self.called)
        if self.champion_of:
            yield "champion", f"of {', '.join(self.champion_of)}"
        if self.source:
            yield "from", shown(self.source)
        if self.made.get("method"):
            yield "made by", str(self.made["method"])
        for name, digest in self.models.items():
            licence = self.licences.get(name) or "no licence stated"
            yield "uses", f"{name}  {digest[:12]}  {licence}"
        if not self.models:
            yield "licence", ", ".join(filter(None, self.licences.values())) or "not stated"
        for suite, (mean, low, high) in self.scores.items():
            yield "scores", f"{suite}: {mean:.1f} ({low:.1f} to {high:.1f})"
        yield "since", f"{self.at[:19].replace('T', ' ')} by {self.by or 'somebody'}"

    def to_json(self) -> dict[str, Any]:
        """Return it as plain data."""
        marks = [
            {"digest": each.digest, "called": each.called, "because": each.because, "by": each.by,
             "at": each.when, "warn_only": each.warn_only}
            for each in self.withdrawn
        ]  # fmt: skip
        scores = {
            suite: {"mean": mean, "low": low, "high": high}
            for suite, (mean, low, high) in self.scores.items()
        }
        return {
            "name": self.name, "digest": self.digest, "kind": self.kind,
            "called": list(self.called), "champion_of": list(self.champion_of),
            "bytes": self.nbytes, "kept": self.kept, "location": self.location,
            "made": dict(self.made), "models": dict(self.models), "licences": dict(self.licences),
            "source": self.source, "scores": scores, "at": self.at, "by": self.by,
            "stale": list(self.stale), "withdrawn": marks,
        }  # fmt: skip


def shown_of(store: "ArtifactStore", text: str) -> Shown:
    """Collect what is known of the content that a name stands for.

    Raises MissingArtifactError where it stands for nothing, or the store has lost it.
    """
    named = resolve_name(store, text)
    artifact, refs = store.get(named.kind, named.digest), named_refs(store)
    own = [ref for ref in refs if (ref.kind, ref.digest) == (named.kind, named.digest)]
    own.sort(key=lambda ref: ref.asset != named.asset)
    champion_of = [_recipe(ref) for ref in own if names.kind_of(_asset(ref)) == names.CHAMPION]
    states = {recipe: champion_state(store, recipe) for recipe in champion_of}
    said = next((ref.fields for ref in own if "models" in ref.fields), own[0].fields if own else {})
    models, licences = said.get("models"), said.get("licences")
    models = dict(models) if isinstance(models, dict) else {}
    licences = dict(licences) if isinstance(licences, dict) else {}
    if not models and said.get("licence"):
        licences = {text: str(said["licence"])}
    manifest, current = artifact.manifest, own[0].current if own else None
    return Shown(
        name=named.name,
        digest=named.digest,
        kind=named.kind,
        called=tuple(label_of(_asset(ref), ref.partition) for ref in own),
        champion_of=tuple(champion_of),
        nbytes=bytes_in(manifest),
        kept=_kept(named, artifact.virtual),
        location=artifact.uri if artifact.virtual else artifact.location,
        made=dict(manifest.get("plan") or {}),
        models=models,
        licences=licences,
        source=said.get("resolved"),
        scores=_scores(store, named.digest, own, refs),
        at=current.at if current is not None else str(manifest.get("created", "")),
        by=current.by if current is not None else None,
        stale=tuple(
            f"the champion of {recipe}: {state.stale}"
            for recipe, state in states.items()
            if state is not None and state.stale
        ),
        withdrawn=tuple(rests_on(store, [named.digest]).get(named.digest, ())),
    )


def _asset(ref: "Ref") -> str:
    return names.present_name(ref.asset)


def _recipe(ref: "Ref") -> str:
    return _asset(ref).rpartition("/")[0]


def _kept(named: Named, virtual: bool) -> str:
    if virtual:
        return "virtual: planned, and made when it is asked for"
    if named.kind == PACKED:
        return "packed: kept as the exact difference from its base"
    return "written"


def _scores(
    store: "ArtifactStore", digest: str, own: "list[Ref]", refs: "list[Ref]"
) -> dict[str, tuple[float, float, float]]:
    """The test means of just this content, in percent, by suite."""
    if not own or own[0].kind not in LOADABLE:
        return {}
    assets = {"model_scores" if _asset(r) == MODEL else f"{_recipe(r)}/{names.SCORES}" for r in own}
    partitions, found = {ref.partition for ref in own}, dict[str, tuple[float, float, float]]()
    for ref in refs:
        asset = _asset(ref)
        of_own = asset in assets or asset.split("/")[0] in assets
        if ref.kind != SCORES or not of_own or ref.partition not in partitions:
            continue
        try:
            artifact = store.find(SCORES, ref.digest)
            if artifact is None or artifact.manifest["checkpoint"]["digest"] != digest:
                continue
            scores = open_scores(artifact, checked=False)
            mean = scores.mean()
        except (DamagedArtifactError, ScoresError, KeyError, TypeError):
            continue
        found[scores.suite] = (100 * mean.value, 100 * mean.low, 100 * mean.high)
    return found
