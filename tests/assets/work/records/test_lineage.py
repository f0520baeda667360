"""Where merges come from, what models went into, and under which licence: one real store."""

import json
from pathlib import Path
from typing import Any

import pytest

from assets.work import names
from assets.work.merging.manifests import ANCESTRY, COST, LICENCES, MAKING, TEXTS
from assets.work.merging.virtual_checkpoints import making_of, materialize
from assets.work.ranking.collecting import RankedRecipe
from assets.work.ranking.licensing import open_conflicts, refuse_conflicts, standing_of
from assets.work.records.lineage import descendants, impact, lineage, parents_in
from merge_ops.errors import LicenceConflictError
from merge_ops.provenance.ancestry import CONTENT, Ancestry
from resources.errors import MissingArtifactError
from resources.store import ArtifactStore
from tests.assets.work.pedigree import SETTINGS, Pedigree, make_pedigree, merged, steps_of

POINT = "simple[lambda=0.5]"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Pedigree:
    return make_pedigree(tmp_path_factory.mktemp("pedigree"))


def edges_of(ancestry: Ancestry, digest: str) -> list[tuple[str, str, float | None]]:
    return [(each.name, each.relation, each.weight) for each in ancestry.parents(digest)]


def test_a_manifest_says_where_it_comes_from_how_and_at_what_cost(made: Pedigree) -> None:
    manifest = made.simple.checkpoints[0].artifact.manifest
    digests = {name: made.digest(name) for name in ("base", "e1", "e2")}
    assert manifest[ANCESTRY] == [
        {"digest": digests["base"], "relation": "base", "weight": None},
        {"digest": digests["e1"], "relation": "expert", "weight": 0.75},
        {"digest": digests["e2"], "relation": "expert", "weight": 0.25},
    ]
    assert manifest[LICENCES] == {
        digests["base"]: ["apache-2.0"], digests["e1"]: ["llama3.1"], digests["e2"]: ["qwen"],
    }  # fmt: skip
    assert manifest["plan"]["arithmetic"] == "cpu"
    assert manifest[TEXTS] == []
    cost = manifest[COST]
    assert cost.keys() == {"seconds", "bytes_read", "bytes_written", "gpu_seconds", "outputs"}
    assert (cost["outputs"], cost["gpu_seconds"]) == (2, 0.0)
    assert cost["bytes_written"] == made.simple.bytes_written
    assert not {"base", "e1", "e2"} & set(making_of(made.simple.checkpoints[0].artifact).models)


def test_a_virtual_checkpoint_says_the_same_and_keeps_it(made: Pedigree, tmp_path: Path) -> None:
    text = "merge_method: linear\nmodels: [{model: e1}, {model: e2}]\nparameters: {weight: 1}\n"
    steps = steps_of(tmp_path, "mean", text + "keep: none\n")
    (point,) = merged(made.store, steps, "mean").checkpoints
    assert point.artifact.virtual
    before = dict(point.artifact.manifest)
    written = materialize(made.store, point.artifact, SETTINGS)
    assert COST not in before
    kept = (ANCESTRY, MAKING, LICENCES, "inputs", "plan", "tensors")
    assert {name: written.manifest[name] for name in kept} == {name: before[name] for name in kept}
    assert written.manifest[COST]["outputs"] == 1


def test_lineage_follows_steps_and_adapters_down_to_what_was_pulled(made: Pedigree) -> None:
    found = lineage(made.store, "chained/merged_checkpoint[default]")
    assert found.root == made.chained.checkpoints[0].artifact.digest
    assert edges_of(found, found.root) == [
        ("base", "base", None), ("mixed", "expert", 0.5), ("tuned", "adapter", 0.5),
    ]  # fmt: skip
    (step,) = (each for each in found.parents(found.root) if each.name == "mixed")
    assert edges_of(found, step.digest) == [("e1", "expert", 1.0), ("e2", "expert", 3.0)]
    assert {each.name: each.licence for each in found.sources} == {
        "base": "apache-2.0", "e1": "llama3.1", "e2": "qwen", "tuned": "cc-by-nc-4.0",
    }  # fmt: skip
    assert found.nodes[found.root].licence == "cc-by-nc-4.0"
    assert found.nodes[step.digest].licence == "llama3.1"
    assert found.missing == ()
    assert json.loads(json.dumps(found.to_json())) == found.to_json()


def test_names_champions_and_digests_lead_to_the_same(made: Pedigree) -> None:
    roots = {lineage(made.store, name).root for name in (POINT, "simple/champion")}
    digest = made.simple.checkpoints[0].artifact.digest
    assert roots == {digest} == {lineage(made.store, digest[:10]).root}
    model = lineage(made.store, "e1")
    assert (model.edges, model.nodes[model.root].kind) == ((), "model")
    with pytest.raises(MissingArtifactError, match="names nothing in artifact store"):
        lineage(made.store, "no-such-model")
    for name in ("simple", "simple[density=0.2|e1+e2]", "simple/e1"):  # one made, none is nearer
        with pytest.raises(
            MissingArtifactError, match=r"Recipe 'simple' made simple\[.*\]\. Known"
        ):
            lineage(made.store, name)


def test_impact_tells_everything_the_nearest_first(made: Pedigree) -> None:
    found = impact(made.store, "e2")
    named = [(each.depth, each.name, each.champion) for each in found if each.asset]
    assert [each for each in named if each[1].startswith(("simple", "chained"))] == [
        (1, POINT, ("simple",)), (1, "simple[lambda=1.0]", ()), (2, "chained[default]", ()),
    ]  # fmt: skip
    (step,) = (each for each in found if not each.asset)  # no name points to it
    assert (step.depth, step.through) == (1, ())
    assert found[-1].through == (step.digest,)
    whole = impact(made.store, "tuned")
    assert [each.name for each in whole] == ["chained[default]", "whole_model[tuned]"]
    assert impact(made.store, "chained[default]") == []


def test_manifests_and_refs_are_read_once_each_in_batches(
    made: Pedigree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cost by counts: a read for each manifest of a checkpoint and each ref that points."""
    store = ArtifactStore.open(made.store.uri, made.store.cache.root, catalog="team")
    reads: list[str] = []
    read = store.place.read

    def counted(key: str) -> Any:
        reads.append(key)
        return read(key)

    monkeypatch.setattr(store.place, "read", counted)
    descendants(store, [made.digest("base")])
    manifests = [key for key in reads if key.startswith("artifacts/")]
    assert len(manifests) == len(set(manifests)) == len(store.digests("checkpoint"))
    assert not [key for key in reads if "/model/" in key]


def test_an_earlier_release_s_manifest_is_read_too(made: Pedigree) -> None:
    """It has `inputs` alone, in which a base with an adapter stands for itself and for both."""
    manifest = dict(made.chained.checkpoints[0].artifact.manifest)
    told = {edge.parent for edge in parents_in(manifest, "x")}
    assert len(manifest["inputs"]) == len(told) + 1
    del manifest[ANCESTRY]
    making = parents_in(manifest, "x")
    del manifest[MAKING]
    earlier = parents_in(manifest, "x")
    assert {edge.relation for edge in (*making, *earlier)} == {CONTENT}
    assert {edge.parent for edge in making} == {edge.parent for edge in earlier} == told
    assert parents_in({}, "x") == []


def test_the_strictest_licence_decides_and_the_merge_tells_it(made: Pedigree) -> None:
    standing = standing_of(made.store, POINT)
    assert standing.licence == made.simple.licence
    assert (standing.licence.licence.id, standing.licence.decided_by) == ("llama3.1", ("e1",))
    assert made.chained.licence is not None
    assert made.chained.licence.licence.id == "cc-by-nc-4.0"


def test_a_conflict_stops_publishing_and_no_merge(made: Pedigree, tmp_path: Path) -> None:
    entry = made.folders["e1"].parent / "e3"
    entry.mkdir()
    for file in made.folders["e1"].iterdir():
        data = file.read_bytes()
        (entry / file.name).write_bytes(
            data if file.name != "README.md" else b"---\nlicense: gpl-3.0\n---\n"
        )
    from assets.work.upstream.entries import UpstreamModel
    from assets.work.upstream.pulling import pull_model

    pull_model(made.store, UpstreamModel("e3", str(entry), "base", store="full"), Path())
    text = "merge_method: linear\nmodels: [{model: e3}, {model: e2}]\nparameters: {weight: 1}\n"
    found = merged(made.store, steps_of(tmp_path, "mixed2", text), "mixed2")
    digest = found.checkpoints[0].artifact.digest  # it was merged all the same
    assert found.licence is not None
    assert [each.id for each in found.licence.conflicts] == ["gpl-3.0 + qwen"]
    recipe = RankedRecipe("mixed2", "s", False, {})
    with pytest.raises(
        LicenceConflictError,
        match=r"x is no champion: the licences of its inputs do not go together: gpl-3\.0 \+ qwen"
        r" .*accept_licence_conflicts: \[gpl-3\.0 \+ qwen\]`\. .*no legal advice",
    ):
        refuse_conflicts(made.store, digest, recipe, "x is no champion")
    accepted = RankedRecipe("mixed2", "s", False, {}, accepted_conflicts=("Qwen + GPL-3.0",))
    refuse_conflicts(made.store, digest, accepted, "x is no champion")
    assert open_conflicts(made.store, digest, ()) == found.licence.conflicts


def test_a_training_run_stands_for_all_of_its_steps(made: Pedigree) -> None:
    for step, model in ((10, "e1"), (20, "base"), (20, "tuned")):  # step 20 was taken again
        made.store.point(names.RUN_STEP, f"pretrain@{step}", "model", made.digest(model))
    models = [made.digest(model) for model in ("e1", "base", "tuned")]
    assert impact(made.store, "pretrain") == descendants(made.store, models)
    assert len(impact(made.store, "pretrain")) > len(impact(made.store, "tuned"))
    with pytest.raises(MissingArtifactError, match="'pretrai' names nothing in artifact store"):
        impact(made.store, "pretrai")
