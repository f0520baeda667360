"""What a checkpoint was made of, and what a model went into, by digest. Knows no Dagster.

Manifests tell the edges, for they follow from content. Refs tell what a catalog calls a content,
where it came from and what licence the catalog says it has. Manifests and refs are read at once,
some hundred at a time, and of each no more is kept than its digests and names.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from assets.work import names
from assets.work.merging.manifests import ANCESTRY, MAKING
from assets.work.merging.virtual_checkpoints import CHECKPOINT
from assets.work.merging.whole_models import WHOLE_MODEL
from assets.work.records.stored_names import label_of, resolve_name
from assets.work.upstream.entries import run_and_step
from assets.work.upstream.model_facts import facts_by_digest
from assets.work.upstream.packed_models import MODEL, PACKED
from merge_ops.provenance.ancestry import (
    CONTENT,
    Ancestor,
    Ancestry,
    Descendant,
    Edge,
    without_stacks,
)
from merge_ops.provenance.licences import JOIN, effective
from merge_ops.provenance.upstream_card import stated_ids

if TYPE_CHECKING:
    from resources.store import ArtifactStore, Ref

KINDS = (CHECKPOINT, MODEL, PACKED)
"""Kinds that a node of an ancestry can have."""
SHORT = 12
"""Characters of a digest that stand for it where it has no name."""
BATCH = 500
"""Manifests, or refs, that are read at once and let go of again."""
POINTING = frozenset(
    (names.MERGED_CHECKPOINT, names.STEP, names.CHAMPION, WHOLE_MODEL, names.EARLIER_STEP)
)
"""Parts of the names of assets that point to checkpoints."""


@dataclass(frozen=True)
class Root:
    """A root is what a name or a digest stands for; `ref` is the name's, where there is one."""

    kind: str
    digest: str
    called: str
    ref: "Ref | None" = None
    earlier: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Said:
    """What a catalog says of a content: its name, its licence and where it came from."""

    name: str
    licence: str | None = None
    uri: str | None = None


@dataclass
class _Graph:
    """What was read of manifests so far: kinds and parents, each parent with relation, weight."""

    kinds: dict[str, str] = field(default_factory=dict[str, str])
    parents: dict[str, list[Edge]] = field(default_factory=dict[str, list[Edge]])


def lineage(store: "ArtifactStore", name_or_digest: str) -> Ancestry:
    """Return everything that a name or a digest was made of, down to the models that were pulled.

    Raises MissingArtifactError where it stands for nothing.
    """
    root = find_root(store, name_or_digest)
    graph = _read_down(store, root)
    said = said_by_catalog(store)
    for digest, name in _called_by_ref(root).items():
        said[digest] = replace(said.get(digest, _Said(name)), name=name)
    edges = tuple(edge for edges in graph.parents.values() for edge in edges)
    everything = dict.fromkeys([root.digest, *(edge.parent for edge in edges)])
    sources = [each for each in everything if not graph.parents.get(each)]
    facts = facts_by_digest(
        store, [each for each in sources if graph.kinds.get(each) != CHECKPOINT]
    )
    nodes: dict[str, Ancestor] = {}
    for digest in everything:
        of_it = said.get(digest, _Said(digest[:SHORT]))
        ids, _ = stated_ids(facts.get(digest), of_it.licence)
        kind = graph.kinds.get(digest, "unknown")
        licence = JOIN.join(ids) if digest in sources and ids else None
        nodes[digest] = Ancestor(
            of_it.name, digest, MODEL if kind == PACKED else kind, None, licence, of_it.uri
        )
    missing = tuple(each for each in everything if each not in graph.kinds)
    return _with_licences(Ancestry(root.digest, nodes, edges, missing))


def licences_of(ancestry: Ancestry) -> dict[str, tuple[str, ...]]:
    """Return the ids of each source's licences by its name; those of one name have digests too."""
    sources = ancestry.sources
    shared = [each.name for each in sources]
    return {
        each.name if shared.count(each.name) == 1 else f"{each.name} ({each.digest[:SHORT]})": (
            tuple(each.licence.split(JOIN)) if each.licence else ()
        )
        for each in sources
    }


def impact(store: "ArtifactStore", model: str) -> list[Descendant]:
    """Return everything in the store that a model went into, the nearest first.

    `model` is a model's name or a digest, what a recipe made, or a training run, which stands for
    all of its steps. All contents count, those that a name stood for earlier too. What no name
    points to any more is there too, without a name. Raises MissingArtifactError where it stands for
    nothing.
    """
    from resources.errors import MissingArtifactError

    try:
        root = find_root(store, model)
    except MissingArtifactError:
        steps = _steps_of(store, model)
        if not steps:
            raise
        return descendants(store, steps)
    return descendants(store, (root.digest, *root.earlier))


def descendants(store: "ArtifactStore", digests: Sequence[str]) -> list[Descendant]:
    """Return everything in the store that any of these contents went into, the nearest first."""
    children: dict[str, list[str]] = {}
    for digest, parents in _all_parents(store):
        for parent in parents:
            children.setdefault(parent, []).append(digest)
    through: dict[str, tuple[str, ...]] = dict.fromkeys(digests, ())
    level = list(dict.fromkeys(digests))
    while level:
        following: list[str] = []
        for parent in level:
            path = through[parent] if parent in digests else (*through[parent], parent)
            for child in children.get(parent, ()):
                if child not in through:
                    through[child] = path
                    following.append(child)
        level = following
    found = {digest: path for digest, path in through.items() if digest not in digests}
    return _named(store, found)


def find_root(store: "ArtifactStore", text: str) -> Root:
    """Return what a name or a digest stands for, as `resolve_name` reads it.

    Raises MissingArtifactError where it stands for nothing, or for something that is no model.
    """
    from resources.errors import MissingArtifactError

    named = resolve_name(store, text)
    if named.kind not in KINDS:
        raise MissingArtifactError(
            f"'{text}' stands for a {named.kind} in artifact store {store.uri}, and only models and"
            " checkpoints have an ancestry; `ronghe ls` lists them"
        )
    of_model = named.ref is not None and named.ref.asset == MODEL
    history = named.ref.history if named.ref is not None and of_model else ()
    earlier = dict.fromkeys(each.digest for each in history if each.digest != named.digest)
    called = named.name if named.asset is not None else named.digest[:SHORT]
    return Root(named.kind, named.digest, called, named.ref, tuple(earlier))


def said_by_catalog(store: "ArtifactStore") -> dict[str, _Said]:
    """Return what the catalog says of each model's content, by digest; earlier contents too."""
    said: dict[str, _Said] = {}
    current: dict[str, _Said] = {}
    for name, ref in names.table_of(store, MODEL).refs.items():
        for entry in ref.history:
            resolved, licence = entry.fields.get("resolved"), entry.fields.get("licence")
            of_it = _Said(
                str(name),
                licence if isinstance(licence, str) else None,
                resolved if isinstance(resolved, str) else None,
            )
            said[entry.digest] = of_it
        current[ref.digest] = said[ref.digest]
    return {**said, **current}


def parents_in(manifest: Mapping[str, Any], digest: str) -> list[Edge]:
    """Return what a checkpoint's manifest says it was made of, as edges from its digest.

    Of an earlier release's manifest they are contents without a relation or a weight.
    """
    told = manifest.get(ANCESTRY)
    if isinstance(told, list):
        return [
            Edge(digest, str(each["digest"]), str(each["relation"]), each.get("weight"))
            for each in told
        ]
    making = manifest.get(MAKING)
    if isinstance(making, dict):
        parts = [str(part) for several in making["models"].values() for part in several]
    else:
        parts = without_stacks([str(each) for each in manifest.get("inputs") or ()])
    return [Edge(digest, each, CONTENT) for each in dict.fromkeys(parts)]


def _read_down(store: "ArtifactStore", root: Root) -> _Graph:
    """Kinds and parents of everything from the root down, a level of the graph at a time."""
    graph, level = _Graph(), [root.digest]
    while level:
        following: dict[str, None] = {}
        for part in _batches(level):
            wanted = [(kind, digest) for kind in KINDS for digest in part]
            for (kind, digest), manifest in store.upkeep.read_manifests(wanted).items():
                if digest in graph.kinds or not isinstance(manifest, dict):
                    continue
                graph.kinds[digest] = kind
                edges = parents_in(manifest, digest) if kind == CHECKPOINT else []
                graph.parents[digest] = edges
                following |= dict.fromkeys(edge.parent for edge in edges)
        level = [each for each in following if each not in graph.kinds]
    return graph


def _all_parents(store: "ArtifactStore") -> Iterator[tuple[str, list[str]]]:
    """Every checkpoint of the store with the digests that it was directly made of."""
    for part in _batches(store.digests(CHECKPOINT)):
        read = store.upkeep.read_manifests([(CHECKPOINT, digest) for digest in part])
        for (_, digest), manifest in read.items():
            if isinstance(manifest, dict):
                yield digest, [edge.parent for edge in parents_in(manifest, digest)]


def _steps_of(store: "ArtifactStore", run: str) -> tuple[str, ...]:
    """All contents that the steps of a training run ever had, by their digests."""
    steps = names.refs_of(store, names.RUN_STEP).items()
    histories = [ref.history for name, ref in steps if run_and_step(str(name))[0] == run]
    return tuple(dict.fromkeys(each.digest for history in histories for each in history))


def _called_by_ref(root: Root) -> dict[str, str]:
    """What the ref of a root calls the contents that went in, and the root itself, by digest."""
    if root.ref is None:
        return {}
    models = root.ref.fields.get("models")
    called = models if isinstance(models, dict) else {}
    return {**{str(digest): str(name) for name, digest in called.items()}, root.digest: root.called}


def _with_licences(ancestry: Ancestry) -> Ancestry:
    """The same with the licence that decides at what is made of others: the strictest of all."""
    made = {edge.child for edge in ancestry.edges}
    nodes = dict(ancestry.nodes)
    for digest in made:
        below = licences_of(Ancestry(digest, ancestry.nodes, ancestry.edges))
        nodes[digest] = replace(nodes[digest], licence=effective(below).licence.id)
    return replace(ancestry, nodes=nodes)


def _named(store: "ArtifactStore", found: Mapping[str, tuple[str, ...]]) -> list[Descendant]:
    """The descendants by the names that point to them now, and those that have none."""
    pointing: dict[str, list[tuple[str, str | None]]] = {}
    champions: dict[str, list[str]] = {}
    for ref in _pointing_refs(store):
        if ref.digest not in found:
            continue
        asset = names.present_name(ref.asset)
        if names.kind_of(asset) == names.CHAMPION:
            champions.setdefault(ref.digest, []).append(asset.split("/")[0])
        else:
            pointing.setdefault(ref.digest, []).append((asset, ref.partition))
    listed: list[Descendant] = []
    for digest, path in found.items():
        of_it = tuple(sorted(champions.get(digest, ())))
        for asset, partition in sorted(pointing.get(digest, [("", None)]), key=str):
            named = label_of(asset, partition) if asset else digest[:SHORT]
            listed.append(
                Descendant(named, digest, CHECKPOINT, len(path) + 1, asset, partition, of_it, path)
            )
    return sorted(listed, key=lambda each: (each.depth, not each.asset, each.name, each.digest))


def _pointing_refs(store: "ArtifactStore") -> Iterator["Ref"]:
    """The refs of this catalog that point to checkpoints, read some hundred at a time."""
    catalog = store.namespace.name
    keys = [(catalog, entry.key) for entry in store.upkeep.ref_entries()]
    keys += [(None, key) for key in store.upkeep.earlier_keys()]
    wanted = [(owner, key) for owner, key in keys if POINTING.intersection(key.split("/")[:-1])]
    for part in _batches(wanted):
        refs = (each.ref for each in store.upkeep.read_refs(part))
        yield from (ref for ref in refs if ref is not None and not ref.vacant)


def _batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
