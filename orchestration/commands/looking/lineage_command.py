"""`ronghe lineage` and `ronghe impact`: what a checkpoint is made of, what a model went into."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from assets.work.merging.manifests import COST
from assets.work.ranking.licensing import Standing, standing_of
from assets.work.records.lineage import SHORT, Root, find_root, impact
from assets.work.records.store_cards import scores_of
from merge_ops.provenance.licences import NO_ADVICE
from orchestration.commands.catalog_store import open_store
from orchestration.commands.console import PlainConsole, marked, print_json, say
from orchestration.commands.store_tables import make_console, print_table, size_text

if TYPE_CHECKING:
    from merge_ops.provenance.ancestry import Ancestor, Ancestry
    from resources.store import ArtifactStore

MOST_SHOWN = 2000
"""Descendants that a table lists; --json has all."""


def show_lineage(name: str, as_json: bool) -> None:
    """Print the ancestry of a name or digest as a tree, its licence, and what it cost."""
    store = open_store()
    standing = standing_of(store, name)
    root = find_root(store, name)
    manifest, scores = _manifest(store, root), scores_of(store, root.ref)
    if as_json:
        document = {
            **standing.ancestry.to_json(),
            "licence": standing.licence.to_json(),
            "made_by": {key: manifest[key] for key in MADE_BY if key in manifest},
            "cost": manifest.get(COST),
            "scores": scores,
        }
        print_json(document)
        return
    console = make_console()
    for line in tree_lines(standing.ancestry):
        say(console, line)
    _say_licence(console, standing)
    cost = manifest.get(COST)
    if isinstance(cost, dict):
        say(console, f"cost: {cost_text(cost)}")
    for suite, digest in scores.items():
        say(console, f"scores: suite {suite}  scores {digest[:SHORT]}")


MADE_BY = ("plan", "making", "versions", "calibration_texts")
"""Fields of a manifest that tell how a checkpoint is made."""


def show_impact(model: str, as_json: bool) -> None:
    """Print what descends from a model, the nearest first."""
    store = open_store()
    found = impact(store, model)
    if as_json:
        listed = [asdict(each) for each in found]
        print_json({"of": model, "descendants": listed})
        return
    console = make_console()
    if not found:
        say(console, f"nothing in {store.uri} is made of {model}")
        return
    rows = [
        (
            str(each.depth),
            each.name,
            each.digest[:SHORT],
            ", ".join(each.champion) or "–",
        )
        for each in found[:MOST_SHOWN]
    ]
    print_table(console, f"made of {model}", ("steps away", "name", "digest", "champion of"), rows)
    digests = {each.digest for each in found}
    champions = sorted({recipe for each in found for recipe in each.champion})
    more = f"; {len(found) - MOST_SHOWN} more, see --json" if len(found) > MOST_SHOWN else ""
    say(console, f"{len(digests)} checkpoints{more}; champions: {', '.join(champions) or 'none'}")


def tree_lines(ancestry: "Ancestry") -> Iterator[str]:
    """Yield an ancestry as lines of a tree: names, weights, short digests, licences."""
    walk = list(ancestry.walk())
    for position, (depth, ancestor, before) in enumerate(walk):
        branches = ""
        if depth:
            bars = (
                "│  " if _goes_on(walk, position, level) else "   " for level in range(1, depth)
            )
            branches = "".join(bars) + ("├─ " if _goes_on(walk, position, depth) else "└─ ")
        yield branches + _described(ancestor, before, ancestor.digest in ancestry.missing)


def _goes_on(walk: list[tuple[int, "Ancestor", bool]], position: int, level: int) -> bool:
    """Whether a later line hangs on the same branch at a level."""
    for depth, _, _ in walk[position + 1 :]:
        if depth <= level:
            return depth == level
    return False


def _described(ancestor: "Ancestor", before: bool, missing: bool) -> str:
    parts = [ancestor.name]
    if ancestor.relation:
        weight = "" if ancestor.weight is None else f", weight {ancestor.weight:g}"
        parts.append(f"{ancestor.relation}{weight}")
    parts.append(f"{ancestor.kind} {ancestor.digest[:SHORT]}")
    parts.append(
        "not in the store any more" if missing else ancestor.licence or "no licence stated"
    )
    if ancestor.uri:
        parts.append(ancestor.uri)
    if before:
        parts.append("(its own parents: see above)")
    return "  ".join(parts)


def _say_licence(console: PlainConsole, standing: Standing) -> None:
    licence = standing.licence
    by = ", ".join(licence.decided_by)
    say(console, f"licence: {licence.licence.name} ({licence.licence.id}), decided by {by}")
    others = [each.id for each in licence.binding[1:]]
    if others:
        say(console, f"  these hold too: {', '.join(others)}")
    if licence.duties:
        say(console, "  whoever passes it on has to:")
    for duty in licence.duties:
        say(console, f"  - {duty}")
    for conflict in licence.conflicts:
        link = f" ({conflict.link})" if conflict.link else ""
        say(console, marked("conflict:", "red", f"{conflict.id}: {conflict.because}{link}"))
    say(console, f"  {NO_ADVICE}")


def cost_text(cost: Mapping[str, Any]) -> str:
    """Say what a merge cost, and for how many outputs together."""
    gpu = f", {cost['gpu_seconds']:g} GPU-seconds" if cost.get("gpu_seconds") else ""
    outputs = cost.get("outputs") or 1
    shared = f", for {outputs} outputs of one read" if outputs > 1 else ""
    return (
        f"{cost['seconds']:g} s, {size_text(cost['bytes_read'])} read,"
        f" {size_text(cost['bytes_written'])} written{gpu}{shared}"
    )


def _manifest(store: "ArtifactStore", root: Root) -> Mapping[str, Any]:
    found = store.find(root.kind, root.digest)
    return found.manifest if found is not None else {}
