"""Upstream models as the site shows them: entry, content, card, task vector, scores."""

import shlex
from collections.abc import Mapping
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from assets.site.facts import CatalogFacts
from assets.site.sections.scores_seen import SeenScores
from assets.site.view import ModelView, SplitScores, SuiteView
from assets.work.merging.studying import TASK_VECTOR
from assets.work.merging.whole_models import live_models
from assets.work.names import table_of
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.packed_models import MODEL, as_it_was
from eval_ops.scores import scores_digest
from merge_ops.errors import RongheError
from resources.errors import ResourceError

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref

MOST_CARD = 20_000
"""Characters of a model's README that its page shows."""
LARGEST_CARD = 1 << 20
"""Bytes of a README that is read at all."""


def model_views(
    store: "ArtifactStore",
    facts: CatalogFacts,
    suites: Mapping[str, tuple[SuiteView, str]],
    seen: SeenScores,
    before: Mapping[str, Mapping[str, Any]],
    problems: dict[str, str],
) -> tuple[ModelView, ...]:
    """Show every model of the catalog.

    `suites` are views with digests, `before` the models of the site before, by name.
    """
    refs, damaged = live_models(store, facts.models)
    problems.update(damaged)
    plain = table_of(store, MODEL).refs
    vectors = table_of(store, TASK_VECTOR).refs
    wanted: dict[str, SuiteView] = {}
    of_model: dict[str, dict[str, str]] = {}
    for suite, (view, suite_digest) in suites.items():
        scored = table_of(store, f"model_scores/{suite}", facts.models).refs
        for name in facts.models:
            ref, scores = refs.get(name), scored.get(name)
            if ref is None or scores is None:
                continue
            if scores_digest(ref.digest, suite_digest) == scores.digest:
                wanted[scores.digest] = view
                of_model.setdefault(name, {})[suite] = scores.digest
    seen.read(store, wanted)
    broken = facts.contest.broken.models
    views: list[ModelView] = []
    for name, entry in facts.models.items():
        found: dict[str, SplitScores] = {}
        for suite, digest in of_model.get(name, {}).items():
            test, _ = seen.known.get(digest, (None, None))
            if test is not None:
                found[suite] = test
        known = before.get(name, {})
        ref = plain.get(name)
        content = _content(store, ref, known, problems)
        vector = _vector(store, vectors.get(name), known, problems)
        views.append(
            ModelView(
                name=name,
                shell=shlex.quote(name),
                python=repr(name),
                base=entry.base or "",
                kind=entry.kind,
                source=_source(entry, ref),
                licence=entry.licence or "",
                description=entry.description or "",
                title=entry.title or "",
                broken=broken.get(name, ""),
                scores=found,
                **_of_ref(ref),
                **content,
                **vector,
            )
        )
    return tuple(views)


def _of_ref(ref: "Ref | None") -> dict[str, Any]:
    if ref is None:
        return {}
    entry = ref.current
    revision = str(entry.fields.get("revision") or "")
    return {"digest": ref.digest, "at": entry.at, "by": entry.by or "", "revision": revision}


def _source(entry: UpstreamModel, ref: "Ref | None") -> str:
    """Where a model comes from, as others can find it: no folder of this machine."""
    resolved = str(ref.fields.get("resolved") or "") if ref is not None else ""
    source = resolved or entry.source
    if "://" in source and not source.startswith("file:"):
        return source
    return f"…/{PurePath(source).name}"


def _content(
    store: "ArtifactStore",
    ref: "Ref | None",
    known: Mapping[str, Any],
    problems: dict[str, str],
) -> dict[str, Any]:
    """Size and card of a model, from the site before where the content is the same."""
    if ref is None:
        return {}
    if known.get("digest") == ref.digest:
        return {"nbytes": known["nbytes"], "card": known["card"]}
    try:
        artifact = store.get(ref.kind, ref.digest)
        stored = as_it_was(store, artifact)
        record, card = stored.files.get("README.md"), ""
        if record is not None and 0 < record.size <= LARGEST_CARD:
            buffer = bytearray(record.size)
            with stored.source() as source:
                source.read_into("README.md", 0, memoryview(buffer))
            card = buffer.decode("utf-8", "replace")[:MOST_CARD]
        return {"nbytes": stored.nbytes, "card": card}
    except (ResourceError, RongheError) as error:
        problems[f"model {ref.partition}"] = f"{type(error).__name__}: {error}"
        return {}


def _vector(
    store: "ArtifactStore",
    ref: "Ref | None",
    known: Mapping[str, Any],
    problems: dict[str, str],
) -> dict[str, Any]:
    """The task vector's norm, by layer too, from the site before where it is the same study."""
    if ref is None:
        return {}
    if known.get("study") == ref.digest:
        layers = tuple((layer, norm) for layer, norm in known["layers"])
        return {**{k: known[k] for k in ("study", "norm", "changed")}, "layers": layers}
    try:
        findings = store.get(ref.kind, ref.digest).read_json("study.json")
    except (ResourceError, ValueError) as error:
        problems[f"task vector {ref.partition}"] = f"{type(error).__name__}: {error}"
        return {}
    return {"study": ref.digest, **_norms(findings)}


def _norms(findings: Mapping[str, Any]) -> dict[str, Any]:
    """Norms by layer, the square roots of summed squares; nothing where a look failed."""
    squares: dict[int | None, float] = {}
    for tensor in findings.get("tensors", ()):
        if tensor["norm"] is None:
            return {}
        squares[tensor["layer"]] = squares.get(tensor["layer"], 0.0) + tensor["norm"] ** 2
    order = sorted(squares, key=lambda layer: (layer is None, layer or 0))
    layers = tuple((layer, _significant(squares[layer] ** 0.5)) for layer in order)
    whole, changed = findings.get("norm"), findings.get("changed_share")
    return {
        "layers": layers,
        "norm": None if whole is None else _significant(whole),
        "changed": None if changed is None else round(changed, 6),
    }


def _significant(value: float) -> float:
    """A number with six digits: what a page shows."""
    return float(f"{value:.6g}")
