"""Pruning: weights go, manifests and scores stay, and what was pruned is made again as it was."""

import json
from pathlib import Path

import pytest

from assets.work import names
from assets.work.merging.merging import CHECKPOINT, MergeJob, merge_set, point_at
from assets.work.merging.virtual_checkpoints import materialize
from assets.work.ranking.collecting import Contest, RankedRecipe
from assets.work.ranking.pruning import Keeping, parse_keep, prune
from merge_ops.errors import SettingsError
from merge_ops.recipes import Steps
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream import StreamSettings
from resources.errors import DamagedArtifactError
from resources.store import Artifact, ArtifactStore
from tests.merges.store_merges import pull_family
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import SHAPE

SETTINGS = StreamSettings(threads=1, device="cpu")
ASSET = names.merged_checkpoint("r")
TEXT = """
merge_method: task_arithmetic
base_model: base
experts: all
parameters: {weight: 1.0}
sweep: {lambda: [0.25, 0.5, 1.0]}
keep: all
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> factory.Family:
    return factory.write_family(tmp_path_factory.mktemp("family"), SHAPE)


@pytest.fixture
def store(tmp_path: Path, family: factory.Family) -> ArtifactStore:
    store = ArtifactStore.open((tmp_path / "store").as_uri(), catalog="c")
    pull_family(store, family)
    merged = merge_set(store, JOB, SETTINGS)
    point_at(store, JOB, merged, "run")
    return store


def job_of(text: str = TEXT) -> MergeJob:
    recipe = parse_recipe(text, "r", "r.yaml")
    points: dict[str, str | None] = {each.id: each.id for each in recipe.coefficients()}
    return MergeJob(Steps((recipe,)), "base", "expert-1+expert-2", points, ASSET)


JOB = job_of()
POINTS = {str(p): ("expert-1+expert-2", str(p)) for p in JOB.points}
CONTEST = Contest(["base"], ["expert-1", "expert-2"], [RankedRecipe("r", "s", False, POINTS)], {})


def written(store: ArtifactStore) -> dict[str, Artifact]:
    """The checkpoints whose files are there, by partition."""
    found = {str(key): store.get(ref.kind, ref.digest) for key, ref in store.refs(ASSET).items()}
    return {key: each for key, each in found.items() if not each.virtual}


def champion(store: ArtifactStore, partition: str, catalog: str | None = None) -> None:
    ref = store.ref(ASSET, partition)
    assert ref is not None
    other = ArtifactStore.open(store.uri, catalog=catalog) if catalog else store
    other.point(names.champion("r"), None, ref.kind, ref.digest)


def test_what_is_pruned_is_made_again_byte_for_byte(store: ArtifactStore) -> None:
    before = {key: each.content_digest for key, each in written(store).items()}
    champion(store, "lambda=0.5")
    listed = prune(store, CONTEST, [JOB], Keeping(), SETTINGS, dry_run=True)
    assert set(written(store)) == set(before)
    report = prune(store, CONTEST, [JOB], Keeping(), SETTINGS)
    assert {each.digest for each in report.pruned} == {each.digest for each in listed.pruned}
    assert set(written(store)) == {"lambda=0.5"}
    assert (report.kept, report.held) == (1, {})
    assert report.nbytes >= listed.nbytes > 0
    weights = [each for each in store.place.walk("attempts") if "safetensors" in each.key]
    assert len([each for each in weights if each.size > 1000]) >= 1
    assert store.gc(0).nbytes == 0

    for key in before:
        ref = store.ref(ASSET, key)
        assert ref is not None
        again = materialize(store, store.get(CHECKPOINT, ref.digest), SETTINGS)
        assert again.content_digest == before[key]
        assert store.verify(again) == []
    assert prune(store, CONTEST, [JOB], Keeping(), SETTINGS).pruned


def test_merging_again_finds_pruned_ones_and_writes_them_as_the_recipe_keeps_all(
    store: ArtifactStore,
) -> None:
    prune(store, CONTEST, [JOB], Keeping(), SETTINGS)
    assert written(store) == {}
    merge_set(store, JOB, SETTINGS)
    assert len(written(store)) == 3


def test_the_first_of_a_leaderboard_stay(store: ArtifactStore) -> None:
    ref = store.ref(ASSET, "lambda=1.0")
    assert ref is not None
    rows = [
        {"experts": [], "digest": "x", "recipe": None},
        {"experts": ["e"], "digest": ref.digest, "recipe": "r"},
        {"experts": ["e"], "digest": "y", "recipe": "r"},
    ]
    with store.attempt("leaderboard") as attempt:
        attempt.write_bytes("s.json", json.dumps(rows).encode())
        attempt.write_bytes("s.md", b"")
        board = attempt.publish()
    store.point("leaderboard", None, "leaderboard", board.digest)
    prune(store, CONTEST, [JOB], Keeping(top=1), SETTINGS)
    assert set(written(store)) == {"lambda=1.0"}


def test_what_another_catalog_points_to_stays(store: ArtifactStore) -> None:
    champion(store, "lambda=0.25", catalog="others")
    prune(store, CONTEST, [JOB], Keeping(), SETTINGS)
    assert set(written(store)) == {"lambda=0.25"}


def test_what_cannot_be_made_again_stays_and_says_why(store: ArtifactStore) -> None:
    changed = job_of(TEXT.replace("weight: 1.0", "weight: 0.5"))
    report = prune(store, CONTEST, [changed], Keeping(), SETTINGS)
    assert report.pruned == ()
    assert len(written(store)) == 3
    assert "would make another one now" in report.held["r/merged_checkpoint [lambda=0.5]"]
    store.place.delete([store.upkeep.key_of("model", "expert-1")])
    report = prune(store, CONTEST, [JOB], Keeping(), SETTINGS)
    assert report.pruned == ()
    assert "MissingArtifactError" in report.held["r/merged_checkpoint [lambda=0.5]"]


def test_nothing_is_pruned_while_a_name_cannot_be_read(store: ArtifactStore) -> None:
    champion(store, "lambda=0.5")
    store.place.put(store.upkeep.key_of(names.champion("r"), None), b"{")
    with pytest.raises(DamagedArtifactError, match="nothing is pruned while a name in"):
        prune(store, CONTEST, [JOB], Keeping(), SETTINGS)
    assert len(written(store)) == 3


def test_keep_is_champions_and_maybe_a_number_of_first_ones() -> None:
    assert parse_keep("champions") == Keeping(0)
    assert parse_keep("champions, top:3") == Keeping(3)
    for wrong in ("", "top:3", "champions,top:x", "champions,best", "champions,top:1,top:2"):
        with pytest.raises(SettingsError, match="it must be 'champions', or 'champions,top:N'"):
            parse_keep(wrong)
