"""Where a model comes from, as data: nodes by digest, edges with weights. Knows no store.

A content is a node once, however many ways lead to it. What it is called, and what is said of its
licence, are a catalog's words; the digests and the edges follow from content alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import stacked_digest
from merge_ops.errors import AncestryError

BASE, INPUT, ADAPTER, STEP, CONTENT = "base", "expert", "adapter", "step", "content"
"""What a parent is to its child: the base model, an expert, an adapter on a base, what an earlier
step of the recipe made, or, for what an earlier release wrote, a content that went in."""
MOST_NODES = 100_000
"""Nodes of an ancestry that is read from JSON."""


@dataclass(frozen=True)
class Ancestor:
    """An ancestor is one content: what it is called, its digest, and its licence.

    `kind` is that of the artifact (`model`, `checkpoint`). `weight` and `relation` are those of the
    edge that it was asked by (`Ancestry.parents`): the number that the recipe gives it, None where
    there is no single one. `licence` is an id of merge_ops.provenance.licences, or as it was
    written; None: not stated. `uri` is where it is, such as `hf://org/name@commit`.
    """

    name: str
    digest: str
    kind: str = "model"
    weight: float | None = None
    licence: str | None = None
    uri: str | None = None
    relation: str = ""


@dataclass(frozen=True)
class Edge:
    """An edge says that `child` is made of `parent`, both by digest, and what the parent gives."""

    child: str
    parent: str
    relation: str
    weight: float | None = None


@dataclass(frozen=True)
class Ancestry:
    """An ancestry is a graph without cycles: everything that `root` was made of, and root itself.

    `missing` are digests that are named and of which nothing is known any more.
    """

    root: str
    nodes: Mapping[str, Ancestor]
    edges: tuple[Edge, ...] = ()
    missing: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.root not in self.nodes:
            raise AncestryError(f"the ancestry of {self.root} has no node of that digest")
        for edge in self.edges:
            for digest in (edge.child, edge.parent):
                if digest not in self.nodes:
                    raise AncestryError(
                        f"the ancestry of {self.root} has an edge to {digest}, which is no node"
                    )

    @cached_property
    def _by_child(self) -> Mapping[str, tuple[Edge, ...]]:
        by_child: dict[str, list[Edge]] = {}
        for edge in self.edges:
            by_child.setdefault(edge.child, []).append(edge)
        return {child: tuple(edges) for child, edges in by_child.items()}

    def parents(self, digest: str) -> tuple[Ancestor, ...]:
        """Return what one content is directly made of, each with its relation and weight."""
        return tuple(
            replace(self.nodes[edge.parent], relation=edge.relation, weight=edge.weight)
            for edge in self._by_child.get(digest, ())
        )

    def walk(self) -> Iterator[tuple[int, Ancestor, bool]]:
        """Yield depth, ancestor, and whether it was told before, from the root on, depth first.

        The parents of an ancestor that was told before are not told again, so a walk is as long as
        the graph has edges. Raises AncestryError where the graph has a cycle.
        """
        told: set[str] = set()
        path: list[str] = []
        waiting: list[tuple[int, Ancestor]] = [(0, self.nodes[self.root])]
        while waiting:
            depth, ancestor = waiting.pop()
            del path[depth:]
            if ancestor.digest in path:
                raise AncestryError(f"the ancestry of {self.root} runs in a circle")
            path.append(ancestor.digest)
            before = ancestor.digest in told
            told.add(ancestor.digest)
            yield depth, ancestor, before
            if not before:
                parents = self.parents(ancestor.digest)
                waiting += [(depth + 1, each) for each in reversed(parents)]

    @cached_property
    def sources(self) -> tuple[Ancestor, ...]:
        """Return what is made of nothing else here, in the order of the walk, each once."""
        found = {
            each.digest: replace(each, weight=None, relation="")
            for _, each, _ in self.walk()
            if each.digest not in self._by_child
        }
        return tuple(found.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain data that `from_json` reads: root, nodes in the order of the walk, edges."""
        order = dict.fromkeys([each.digest for _, each, _ in self.walk()])
        nodes = [asdict(replace(self.nodes[d], weight=None, relation="")) for d in order]
        for node in nodes:
            del node["weight"], node["relation"]
        edges = [asdict(edge) for edge in self.edges]
        return {"root": self.root, "nodes": nodes, "edges": edges, "missing": list(self.missing)}

    @classmethod
    def from_json(cls, document: object) -> Ancestry:
        """Read what `to_json` returned. Raises AncestryError where it is something else."""
        try:
            table = cast("dict[str, Any]", document)
            listed = table["nodes"]
            if len(listed) > MOST_NODES:
                raise AncestryError(f"an ancestry has {len(listed)} nodes, more than {MOST_NODES}")
            nodes = {str(node["digest"]): Ancestor(**node) for node in listed}
            edges = tuple(Edge(**edge) for edge in table["edges"])
            found = cls(str(table["root"]), nodes, edges, tuple(map(str, table["missing"])))
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise AncestryError(
                f"this is no ancestry as `ronghe lineage --json` writes it: {error}"
            ) from error
        return found


def without_stacks(digests: Sequence[str]) -> list[str]:
    """Return the digests but for those of a base with an adapter on it, both of which are here too.

    An earlier release's manifest lists all three.
    """
    pairs = ([first, second] for first in digests for second in digests if first != second)
    stacked = {stacked_digest(pair) for pair in pairs}
    return [each for each in digests if each not in stacked]


@dataclass(frozen=True)
class Descendant:
    """A descendant is what a model went into, directly or by way of others.

    `asset` and `partition` name it in the catalog; both are empty where no name points to it any
    more. `depth` is 1 for what is made of the model itself. `through` are the digests between, and
    `champion` tells the recipes whose champion it is.
    """

    name: str
    digest: str
    kind: str
    depth: int
    asset: str = ""
    partition: str | None = None
    champion: tuple[str, ...] = ()
    through: tuple[str, ...] = field(default=())
