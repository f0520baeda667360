"""Ancestries as data: walks, sources, and what cannot be one."""

from itertools import pairwise

import pytest

from merge_ops.errors import AncestryError
from merge_ops.provenance.ancestry import Ancestor, Ancestry, Edge


def made() -> Ancestry:
    """A merge of what a step made and of an expert, both over one base."""
    nodes = {name: Ancestor(name.upper(), name) for name in ("base", "e1", "e2")}
    nodes |= {name: Ancestor(name.upper(), name, "checkpoint") for name in ("step", "top")}
    edges = (
        Edge("top", "step", "expert", 0.5), Edge("top", "e2", "expert", 0.25),
        Edge("top", "base", "base"), Edge("step", "base", "base"),
        Edge("step", "e1", "expert", 1.0),
    )  # fmt: skip
    return Ancestry("top", nodes, edges)


def test_a_walk_tells_each_edge_once_and_no_parents_twice() -> None:
    walk = [(depth, each.name, each.relation, again) for depth, each, again in made().walk()]
    assert walk == [
        (0, "TOP", "", False), (1, "STEP", "expert", False), (2, "BASE", "base", False),
        (2, "E1", "expert", False), (1, "E2", "expert", False), (1, "BASE", "base", True),
    ]  # fmt: skip
    assert [each.name for each in made().sources] == ["BASE", "E1", "E2"]
    assert [(each.name, each.weight) for each in made().parents("top")] == [
        ("STEP", 0.5), ("E2", 0.25), ("BASE", None),
    ]  # fmt: skip


def test_json_and_back() -> None:
    again = Ancestry.from_json(made().to_json())
    assert again.to_json() == made().to_json()
    assert (again.root, set(again.nodes)) == ("top", set(made().nodes))


def test_what_cannot_be_an_ancestry() -> None:
    with pytest.raises(AncestryError, match="has no node of that digest"):
        Ancestry("x", {})
    with pytest.raises(AncestryError, match="an edge to b, which is no node"):
        Ancestry("a", {"a": Ancestor("a", "a")}, (Edge("a", "b", "expert"),))
    nodes = {name: Ancestor(name, name) for name in "ab"}
    circle = Ancestry("a", nodes, (Edge("a", "b", "base"), Edge("b", "a", "base")))
    with pytest.raises(AncestryError, match="runs in a circle"):
        list(circle.walk())
    for wrong in (
        None,
        [],
        {"root": "a"},
        {"root": "a", "nodes": [{}], "edges": [], "missing": []},
    ):
        with pytest.raises(AncestryError, match="no ancestry as `ronghe lineage --json` writes"):
            Ancestry.from_json(wrong)


def test_a_long_chain_is_no_deep_recursion() -> None:
    names = [f"n{number}" for number in range(5000)]
    edges = tuple(Edge(a, b, "expert") for a, b in pairwise(names))
    chain = Ancestry("n0", {name: Ancestor(name, name) for name in names}, edges)
    assert [each.name for each in chain.sources] == ["n4999"]
