"""Virtual checkpoints: scored without being written, and then the same to the last bit."""

import gc
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from assets.work.merging.merging import CHECKPOINT, MergedSet, MergeJob, merge_set, point_at
from assets.work.merging.virtual_checkpoints import bytes_of, making_of, materialize, plan_of
from assets.work.records.damage import need_fault
from assets.work.scoring.candidates import CandidateScorer, score_virtual
from assets.work.scoring.scoring import Scoring, score_checkpoint
from assets.work.suite_files import load_suite
from eval_ops.errors import CheckpointLoadError
from eval_ops.suites import Suite
from merge_ops.children import model_child, shares_memory
from merge_ops.errors import NonFiniteError
from merge_ops.recipes import Steps
from merge_ops.recipes.reading import parse_recipe
from merge_ops.stream import StreamSettings
from merge_ops.working_folders import sweep
from resources.errors import MissingArtifactError, VirtualArtifactError
from resources.store import Artifact, ArtifactStore
from tests.child_forks import forking_environment
from tests.merges.merging import ROOT
from tests.merges.store_merges import pull_family
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import SHAPE, write_suite
from tests.servers.waiting import wait_until

SETTINGS = StreamSettings(threads=1, device="cpu")
ASSET = "r/merged_checkpoint"
TEXT = """
merge_method: {method}
base_model: base
experts: all
parameters: {{weight: 1.0}}
sweep: {{lambda: [0.5, 1.0]{more}}}
suite: colours
keep: {keep}
"""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> factory.Family:
    return factory.write_family(tmp_path_factory.mktemp("family"), SHAPE)


@pytest.fixture(scope="module")
def suite_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    catalog = tmp_path_factory.mktemp("catalog")
    for folder in ("suites", "items"):
        (catalog / folder).mkdir()
    write_suite(catalog)
    return catalog / "suites" / "colours.yaml"


@pytest.fixture(scope="module")
def suite(suite_file: Path) -> Suite:
    return load_suite(suite_file)


@pytest.fixture(scope="module")
def scoring(suite: Suite) -> Scoring:
    return Scoring(suite, "cpu", 1)


@pytest.fixture
def store_of(tmp_path: Path, family: factory.Family) -> Callable[[str], ArtifactStore]:
    def make(name: str) -> ArtifactStore:
        store = ArtifactStore.open((tmp_path / name).as_uri(), catalog="c")
        pull_family(store, family)
        return store

    return make


def job_of(keep: str, method: str = "task_arithmetic", more: str = "") -> MergeJob:
    recipe = parse_recipe(TEXT.format(method=method, keep=keep, more=more), "r", "r.yaml")
    points: dict[str, str | None] = {each.id: each.id for each in recipe.coefficients()}
    return MergeJob(Steps((recipe,)), "base", "expert-1+expert-2", points, ASSET)


def made(store: ArtifactStore, job: MergeJob) -> MergedSet:
    merged = merge_set(store, job, SETTINGS)
    point_at(store, job, merged, "run")
    return merged


def files_of(artifact: Artifact) -> dict[str, bytes]:
    return {file: artifact.read_bytes(file) for file in artifact.files}


def weights_in(store: ArtifactStore) -> int:
    """Bytes of safetensors files below a local store's folder."""
    root = Path(store.uri.removeprefix("file://"))
    return sum(path.stat().st_size for path in root.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("method", "more"), [("task_arithmetic", ""), ("dare_ties", ", density: [0.5]")]
)
def test_scores_and_bytes_are_those_of_written_ones_and_no_weights_are_written(
    store_of: Callable[[str], ArtifactStore], scoring: Scoring, method: str, more: str
) -> None:
    written, virtual = store_of("written"), store_of("virtual")
    first = made(written, job_of("all", method, more))
    job, before = job_of("champion", method, more), weights_in(virtual)
    second = made(virtual, job)
    assert second.bytes_read == second.bytes_written == 0
    assert [each.artifact.virtual for each in second.checkpoints] == [True, True]
    scores = [score_checkpoint(written, each.artifact, scoring) for each in first.checkpoints]
    with CandidateScorer(virtual, job, scoring, SETTINGS) as scorer:
        found = [scorer.score_point("r", each.coefficient) for each in second.checkpoints]
        assert {path.suffix for path in _memory_files(scorer)} == {".safetensors"}
    assert [each.artifact.digest for each in found] == [each.artifact.digest for each in scores]
    assert [each.scores for each in found] == [each.scores for each in scores]
    assert [files_of(each.artifact) for each in found] == [
        files_of(each.artifact) for each in scores
    ]
    assert weights_in(virtual) == before
    again = materialize(virtual, second.checkpoints[0].artifact, SETTINGS)
    theirs = first.checkpoints[0].artifact
    assert (again.digest, again.content_digest) == (theirs.digest, theirs.content_digest)
    assert files_of(again) == files_of(theirs)
    assert again.manifest.keys() == theirs.manifest.keys()
    assert bytes_of(second.checkpoints[0].artifact) == weights_in(virtual) - before


def _memory_files(scorer: CandidateScorer) -> list[Path]:
    folders = scorer._memory._folders
    links = [path for folder in folders for path in folder.path.iterdir() if path.is_symlink()]
    assert all(os.readlink(link).startswith("/proc/") for link in links)
    return links


def test_all_coefficients_come_from_one_read_where_memory_allows(
    store_of: Callable[[str], ArtifactStore], scoring: Scoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    from merge_ops.jobs import assembly

    store, job, merges = store_of("s"), job_of("none"), list[int]()
    whole = assembly.merge

    def counted(plan: Any, *given: Any, **more: Any) -> Any:
        merges.append(len(plan.coefficients))
        return whole(plan, *given, **more)

    monkeypatch.setattr(assembly, "merge", counted)
    checkpoints = made(store, job).checkpoints
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        results = [scorer.score_point("r", each.coefficient) for each in checkpoints]
    assert merges == [2]
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        known = [scorer.score_point("r", each.coefficient) for each in checkpoints]
        assert "_opened" not in vars(scorer)  # what is known costs no plan
    assert [each.memoized for each in (*results, *known)] == [False, False, True, True]
    other = job_of("none", "ties", ", density: [0.5]")
    size = bytes_of(made(store, other).checkpoints[0].artifact)
    small = StreamSettings(threads=1, device="cpu", memory=max(size, 32 << 20), block=65536)
    monkeypatch.setattr("assets.work.merging.memory_merging.room_for", lambda settings, of_one: 1)
    with CandidateScorer(store, other, scoring, small) as scorer:
        for coefficient in other.points:
            scorer.score_point("r", coefficient)
    assert merges == [2, 1, 1]


def test_any_recipe_of_the_models_is_scored(
    store_of: Callable[[str], ArtifactStore], scoring: Scoring
) -> None:
    """What a search asks: a vector that is no point of the grid, and then the grid's own."""
    store, job = store_of("s"), job_of("none")
    text = TEXT.format(method="task_arithmetic", keep="none", more="")
    recipe = parse_recipe(text.replace("[0.5, 1.0]", "[0.7]"), "r", "r.yaml")
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        found = scorer.score(recipe)
        assert scorer.score(recipe).memoized
        with pytest.raises(ValueError, match="r: 2 candidates at once; give one"):
            scorer.score(job.steps.result)
    assert store.find(CHECKPOINT, found.digest) is None
    assert found.artifact is not None
    assert found.artifact.manifest["checkpoint"] == {"kind": "checkpoint", "digest": found.digest}


def test_a_candidate_that_is_not_finite_fails_alone(
    tmp_path: Path, family: factory.Family, scoring: Scoring
) -> None:
    """An expert whose weights double to infinity: one coefficient overflows, the other does not."""
    folder = shutil.copytree(family.experts[0], tmp_path / "huge")
    tensors = factory.read_tensors(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    tensors[name][0, 0] = 3e38
    factory.rewrite_weights(folder, tensors)
    store = ArtifactStore.open((tmp_path / "s").as_uri(), catalog="c")
    pull_family(store, factory.Family(family.base, (folder, family.experts[1])))
    text = TEXT.format(method="task_arithmetic", keep="none", more="")
    recipe = parse_recipe(text.replace("[0.5, 1.0]", "[0.25, 4.0]"), "r", "r.yaml")
    points: dict[str, str | None] = {each.id: each.id for each in recipe.coefficients()}
    job = MergeJob(Steps((recipe,)), "base", f"{family.experts[1].name}+huge", points, ASSET)
    made(store, job)
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        with pytest.raises(NonFiniteError, match=r"lambda=4\.0"):
            scorer.score_point("r", "lambda=4.0")
        assert not scorer.score_point("r", "lambda=0.25").memoized
        with pytest.raises(NonFiniteError, match=r"lambda=4\.0"):
            scorer.score_point("r", "lambda=4.0")
    assert store.ref("r/scores", "lambda=4.0") is None


def test_what_a_manifest_says_is_enough_to_score_and_to_write(
    store_of: Callable[[str], ArtifactStore], scoring: Scoring
) -> None:
    """Names are not in it, and the models' refs may point elsewhere by then."""
    store, job = store_of("s"), job_of("none")
    artifact = made(store, job).checkpoints[0].artifact
    assert {"expert-1", "expert-2", "base"}.isdisjoint(making_of(artifact).models)
    assert plan_of(store, artifact, SETTINGS).outputs[0].digest == artifact.digest
    by_name = plan_of(store, artifact, SETTINGS, {making_of(artifact).models["#1"][0]: "base"})
    assert "base" in by_name.recipe.referenced_models
    found = score_virtual(store, artifact, scoring, SETTINGS)
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        assert scorer.score_point("r", "lambda=0.5").artifact.digest == found.artifact.digest
    assert need_fault(store, artifact.manifest, set()) is None
    lost = dict(artifact.manifest) | {"digest": artifact.digest}
    (store.place.delete)(
        [
            f"artifacts/model/{digest}/manifest.json"
            for digest in {each for parts in making_of(artifact).models.values() for each in parts}
        ]
    )
    assert "has no model" in str(need_fault(store, lost, set()))


def test_readers_of_bytes_are_told_and_gc_and_verify_know_it(
    store_of: Callable[[str], ArtifactStore],
) -> None:
    store = store_of("s")
    artifact = made(store, job_of("none")).checkpoints[0].artifact
    for read in (artifact.folder, artifact.source, lambda: artifact.read_bytes("config.json")):
        with pytest.raises(VirtualArtifactError, match=r"is virtual: .*`ronghe materialize "):
            read()
    assert store.verify(artifact) == []
    assert store.gc(grace_seconds=0).garbage == ()
    written = materialize(store, artifact, SETTINGS)
    assert materialize(store, artifact, SETTINGS).content_digest == written.content_digest
    kept = merge_set(store, job_of("none"), SETTINGS).checkpoints
    assert [(each.memoized, each.artifact.virtual) for each in kept] == [
        (True, False),
        (True, True),
    ]
    everything = merge_set(store, job_of("all"), SETTINGS).checkpoints
    assert [(each.memoized, each.artifact.virtual) for each in everything] == [
        (True, False), (False, False),
    ]  # fmt: skip
    assert store.gc(grace_seconds=0).garbage == ()
    assert store.verify(everything[1].artifact) == []


@pytest.fixture
def no_shared_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    shares_memory.cache_clear()
    monkeypatch.setattr("merge_ops.children.kept_models.has_memory_files", lambda: False)
    yield
    shares_memory.cache_clear()


@pytest.mark.usefixtures("no_shared_memory")
def test_without_such_memory_a_temporary_folder_does_the_same(
    store_of: Callable[[str], ArtifactStore], scoring: Scoring
) -> None:
    store, job = store_of("s"), job_of("none")
    made(store, job)
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        found = scorer.score_point("r", "lambda=0.5")
        assert not _memory_files(scorer)
        (folder, *_) = [each.path for each in scorer._memory._folders]
        assert (folder / "model.safetensors").is_file()
    assert not folder.exists()
    other = store_of("t")
    (first, *_) = made(other, job_of("all")).checkpoints
    assert found.scores == score_checkpoint(other, first.artifact, scoring).scores


def test_memory_is_let_go(store_of: Callable[[str], ArtifactStore], scoring: Scoring) -> None:
    def held() -> int:
        links = [f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd")]
        names = [os.readlink(each) for each in links if os.path.lexists(each)]
        return sum("ronghe-weights" in name for name in names)

    store, job = store_of("s"), job_of("none")
    made(store, job)
    before = held()
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        scorer.score_point("r", "lambda=0.5")
        assert held() == before + 2
    gc.collect()
    assert held() == before


KILLED = """
import os, signal, sys
from pathlib import Path
from assets.work.scoring.candidates import CandidateScorer
from assets.work.scoring.scoring import Scoring
from assets.work.suite_files import load_suite
from merge_ops.children import model_child
from resources.store import ArtifactStore
from tests.assets.work.scoring.test_candidates import SETTINGS, job_of

def die(done, total):
    folder = scorer._memory._folders[0].path
    print(model_child(False)._running._process.pid, folder.parents[1], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

store = ArtifactStore.open(sys.argv[1], catalog="c")
scoring = Scoring(load_suite(Path(sys.argv[2])), "cpu", 1)
with CandidateScorer(store, job_of("none"), scoring, SETTINGS) as scorer:
    scorer.score_point("r", "lambda=0.5", die)
"""


def test_a_kill_leaves_no_memory_and_a_consistent_store(
    store_of: Callable[[str], ArtifactStore],
    suite_file: Path,
    scoring: Scoring,
    tmp_path: Path,
) -> None:
    store, job = store_of("s"), job_of("none")
    made(store, job)
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, store.uri, suite_file],
        cwd=ROOT,
        env={**os.environ, **forking_environment(), "TMPDIR": str(temporary)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    child, folder = killed.stdout.split()
    wait_until(lambda: not psutil.pid_exists(int(child)), "its child ends")
    assert Path(folder) in sweep(temporary)  # what the next command does
    assert not any(temporary.iterdir())
    assert not list(Path("/dev/shm").glob("*ronghe*"))
    assert store.ref("r/scores", "lambda=0.5") is None
    store.gc(grace_seconds=0)
    with CandidateScorer(store, job, scoring, SETTINGS) as scorer:
        assert not scorer.score_point("r", "lambda=0.5").memoized


def test_nothing_was_made(store_of: Callable[[str], ArtifactStore], scoring: Scoring) -> None:
    store, job = store_of("s"), job_of("none")
    with (
        CandidateScorer(store, job, scoring, SETTINGS) as scorer,
        pytest.raises(MissingArtifactError, match=r"merged_checkpoint \[x\] is not in artifact"),
    ):
        scorer.score_point("r", "x")


def test_a_candidate_that_does_not_load_is_told_by_its_name(
    tmp_path: Path, family: factory.Family, scoring: Scoring
) -> None:
    def broken(config: Path) -> None:
        config.write_text(config.read_text().replace('"qwen2"', '"no_such_model"'))

    folders = [
        shutil.copytree(each, tmp_path / each.name) for each in (family.base, *family.experts)
    ]
    for folder in folders:
        broken(folder / "config.json")
    store = ArtifactStore.open((tmp_path / "s").as_uri(), catalog="c")
    pull_family(store, factory.Family(folders[0], tuple(folders[1:])))
    job = job_of("none")
    made(store, job)
    starts = model_child(False).starts
    with (
        CandidateScorer(store, job, scoring, SETTINGS) as scorer,
        pytest.raises(
            CheckpointLoadError, match=r"^r/merged_checkpoint \[lambda=0.5\]: cannot be lo"
        ),
    ):
        scorer.score_point("r", "lambda=0.5")
    assert model_child(False).starts in (starts, starts + 1)
