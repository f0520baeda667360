"""What models are called is said by refs; what is published follows from contents alone."""

from pathlib import Path

import pytest

from assets.work.merging.merging import MergedSet, MergeJob, merge_set, point_at
from assets.work.upstream.entries import UpstreamModel
from assets.work.upstream.pulling import pull_model
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.models import checkpoint_factory as factory

METHODS = {
    "task_arithmetic": "merge_method: task_arithmetic\nparameters: {weight: 1.0, lambda: 0.5}\n",
    "ties": "merge_method: ties\nparameters: {weight: 1.0, density: 0.5}\n",
    "slerp": "merge_method: slerp\nparameters: {t: 0.25}\n",
}


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> factory.Family:
    return factory.write_family(tmp_path_factory.mktemp("models"), factory.LLAMA)


def merged_by(
    store: ArtifactStore, family: factory.Family, names: tuple[str, str, str], text: str
) -> MergedSet:
    """Pull base and two experts under these names, merge them and point to the result."""
    base, *experts = names
    for name, folder in zip(names, (family.base, *family.experts), strict=True):
        above = None if name == base else base
        entry = UpstreamModel(name, str(folder), above, licence=f"licence of {name}", store="full")
        pull_model(store, entry if above else UpstreamModel(base, str(folder)), Path())
    recipe = parse_recipe(f"{text}experts: all\nbase_model: {base}\n", f"of_{base}", "r.yaml")
    (coefficient,) = recipe.coefficients()
    asset = f"of_{base}/merged_checkpoint"
    job = MergeJob(
        Steps((recipe,)), base, "+".join(experts), {coefficient.id: "point"}, asset,
        {name: f"licence of {name}" for name in experts},
    )  # fmt: skip
    merged = merge_set(store, job, StreamSettings(threads=1, device="cpu"))
    point_at(store, job, merged, "run")
    return merged


def published(store: ArtifactStore, artifact: Artifact) -> dict[str, bytes]:
    return {file: artifact.read_bytes(file) for file in artifact.files}


@pytest.mark.parametrize("method", METHODS)
def test_renamed_models_give_the_same_files_and_manifest(
    tmp_path: Path, family: factory.Family, method: str
) -> None:
    """Whoever merges first: a second store shows what the other catalog would have published."""
    uris = [(tmp_path / each).as_uri() for each in ("first", "second")]
    ours = ("base", "expert-1", "expert-2")
    theirs = ("grund", "成语", "药")  # in the same order: it decides the order of sums
    found: list[tuple[dict[str, bytes], dict[str, object]]] = []
    for uri, names in zip(uris, (ours, theirs), strict=True):
        store = ArtifactStore.open(uri, catalog=names[0])
        (point,) = merged_by(store, family, names, METHODS[method]).checkpoints
        assert not point.memoized
        manifest = {**point.artifact.manifest, "attempt": "", "created": "", "cost": {}}
        found.append((published(store, point.artifact), manifest))
    assert found[0] == found[1]
    text = b"".join(found[0][0]["README.md"].splitlines())
    assert not any(name.encode() in text for name in (*ours[1:], *theirs))


def test_one_store_keeps_each_catalog_s_names(store: ArtifactStore, family: factory.Family) -> None:
    first = ArtifactStore.open(store.uri, store.cache.root, catalog="ours")
    second = ArtifactStore.open(store.uri, store.cache.root, catalog="theirs")
    made = merged_by(first, family, ("base", "e1", "e2"), METHODS["task_arithmetic"])
    found = merged_by(second, family, ("base", "x", "y"), METHODS["task_arithmetic"])
    assert [each.memoized for each in (*made.checkpoints, *found.checkpoints)] == [False, True]
    for catalog, names in ((first, {"e1", "e2"}), (second, {"x", "y"})):
        ref = catalog.ref("of_base/merged_checkpoint", "point")
        assert ref is not None
        assert ref.fields["models"].keys() == {"base", *names}
        assert {ref.fields["licences"][name] for name in names} == {
            f"licence of {name}" for name in names
        }
        assert set(catalog.refs("model")) == {"base", *names}


def test_names_that_a_method_draws_by_stay_in_the_digest(
    tmp_path: Path, family: factory.Family
) -> None:
    text = "merge_method: dare_linear\nparameters: {weight: 1.0, density: 0.5}\n"
    store = ArtifactStore.open(tmp_path.as_uri(), catalog="one")
    first = merged_by(store, family, ("base", "e1", "e2"), text).checkpoints[0].artifact
    other = merged_by(store, family, ("base", "x", "y"), text).checkpoints[0].artifact
    assert first.digest != other.digest
    again = ArtifactStore.open(tmp_path.as_uri(), catalog="two")
    (same,) = merged_by(again, family, ("grund", "e1", "e2"), text).checkpoints
    assert same.memoized
    assert same.artifact.digest == first.digest
