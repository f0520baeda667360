"""Ranking and promoting cost what is new: comparisons made and files read are counted."""

import itertools
import json
import random
from collections import Counter
from pathlib import Path

import pytest
from blake3 import blake3

from assets.work import names
from assets.work.ranking import ranking
from assets.work.ranking.ranking import Contest, RankedRecipe, promote, rank
from assets.work.scoring import scoring
from assets.work.suite_files import load_suite
from eval_ops.scores import leaderboard, samples, scores_digest
from eval_ops.scores.scores import Sample, SuiteScores, summarize
from resources.store import Artifact, ArtifactStore

EXPERTS = ("e1", "e2", "e3", "e4")
SETS = tuple("+".join(pair) for pair in itertools.combinations(EXPERTS, 2))
SPLITS = {"validation": 20, "test": 30}


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open((tmp_path / "store").as_uri())


@pytest.fixture
def contest(tmp_path: Path) -> Contest:
    item = {"choices": ["a", "b"], "answer": 0}
    lines = [json.dumps({"id": split, "split": split, "prompt": split, **item}) for split in SPLITS]
    (tmp_path / "items.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    path = tmp_path / "one.yaml"
    path.write_text("name: one\nbenchmarks: [{name: b, items: items.jsonl}]\n", encoding="utf-8")
    recipes = [
        RankedRecipe(name, "one", name == "plain", {f"x|{each}": (each, "x") for each in SETS})
        for name in ("plain", "ties", "dare")
    ]
    return Contest(["base"], EXPERTS, recipes, {"one": path})


def publish(store: ArtifactStore, kind: str, digest: str, files: dict[str, bytes], **named: object):
    with store.attempt(kind) as attempt:
        for name, data in files.items():
            attempt.write_bytes(name, data)
        attempt.publish(digest, **named)


def score(
    store: ArtifactStore, contest: Contest, merged: str, scored: str, key: str, skill: str
) -> None:
    """Point both names at a checkpoint and at made-up scores of it, which `skill` decides."""
    suite = load_suite(contest.suites["one"])
    digest = blake3(f"{merged} {key} {skill}".encode()).hexdigest()
    draw = random.Random(skill)
    share = draw.uniform(0.2, 0.9)
    samples = tuple(
        Sample("b", split, f"{split}{n}", float(draw.random() < share))
        for split, count in SPLITS.items()
        for n in range(count)
    )
    made = SuiteScores("one", suite.digest, summarize(samples, "acc", "1"), samples)
    publish(store, "checkpoint", digest, {"config.json": b"{}"})
    of_scores = scores_digest(digest, suite.digest)
    files = {
        "scores.json": made.to_json().encode(),
        "samples.parquet": made.samples_to_parquet(),
    }
    said = {"checkpoint": {"digest": digest}, "suite": {"digest": suite.digest}}
    publish(store, "scores", of_scores, files, **said)
    store.point(merged, key, "checkpoint", digest)
    store.point(scored, key, "scores", of_scores)


@pytest.fixture
def scored(store: ArtifactStore, contest: Contest) -> Contest:
    for name in ("base", *EXPERTS):
        score(store, contest, "model", "model_scores/one", name, name)
    for recipe in contest.recipes:
        for key in recipe.points:
            made = names.merged_checkpoint(recipe.name), names.scores(recipe.name)
            score(store, contest, *made, key, f"{recipe.name} {key}")
    return contest


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Comparisons made, and files of artifacts read, while a test runs."""
    counts: Counter[str] = Counter()
    compare, read_bytes = leaderboard.compare, Artifact.read_bytes

    def comparing(*given: object, **options: object) -> object:
        counts["compared"] += 1
        return compare(*given, **options)  # type: ignore[arg-type]

    def reading(artifact: Artifact, file: str) -> bytes:
        counts[file] += 1
        return read_bytes(artifact, file)

    monkeypatch.setattr(leaderboard, "compare", comparing)
    monkeypatch.setattr(Artifact, "read_bytes", reading)
    monkeypatch.setattr(scoring, "_opened", {})
    return counts


def tables_without_memory(
    store: ArtifactStore, contest: Contest, monkeypatch: pytest.MonkeyPatch
) -> object:
    """What a leaderboard gives that knows no earlier one."""
    with monkeypatch.context() as patched:
        patched.setattr(ranking, "_earlier_leaderboard", lambda _: None)
        return rank(store, contest).tables


def test_one_new_row_costs_its_own_comparisons(
    store: ArtifactStore,
    scored: Contest,
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = rank(store, scored)
    merged = 3 * len(SETS)
    assert counted["compared"] > 2 * merged
    counted.clear()
    again = rank(store, scored)
    assert counted["compared"] == 0
    assert counted["samples.parquet"] == 0
    assert again.artifact.digest == first.artifact.digest
    made = names.merged_checkpoint("ties"), names.scores("ties")
    score(store, scored, *made, "x|e1+e2", "another")
    counted.clear()
    after = rank(store, scored)
    assert counted["compared"] == 3  # with the base, the best expert and the plain average
    assert 1 <= counted["samples.parquet"] <= 8
    assert after.tables == tables_without_memory(store, scored, monkeypatch)
    assert after.tables != first.tables


def test_a_new_base_is_compared_with_by_all(
    store: ArtifactStore,
    scored: Contest,
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rank(store, scored)
    score(store, scored, "model", "model_scores/one", "base", "another base")
    counted.clear()
    after = rank(store, scored)
    assert counted["compared"] == 3 * len(SETS) + len(EXPERTS) + 1  # and it with the best
    assert after.tables == tables_without_memory(store, scored, monkeypatch)


def test_what_other_arithmetic_compared_is_compared_again(
    store: ArtifactStore,
    scored: Contest,
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from eval_ops.scores import known_comparisons

    rank(store, scored)
    everything = counted["compared"]
    monkeypatch.setattr(known_comparisons, "COMPARED_BY", known_comparisons.COMPARED_BY + 1)
    counted.clear()
    rank(store, scored)
    assert counted["compared"] == everything


@pytest.mark.parametrize("damaged", ["one.json", "one.sources", "manifest"])
def test_a_damaged_earlier_leaderboard_costs_time_and_nothing_else(
    store: ArtifactStore, scored: Contest, counted: Counter[str], damaged: str
) -> None:
    first = rank(store, scored)
    everything = counted["compared"]
    root = Path(store.uri.removeprefix("file://"))
    (path,) = (
        root.glob("artifacts/leaderboard/*/manifest.json")
        if damaged == "manifest"
        else root.glob(f"attempts/*/{damaged}")
    )
    path.chmod(0o644)
    path.write_bytes(b"[[[[" if damaged == "manifest" else path.read_bytes()[:-3] + b"]]]")
    recipe = scored.recipes[1]
    made = names.merged_checkpoint(recipe.name), names.scores(recipe.name)
    score(store, scored, *made, "x|e1+e2", "another")
    counted.clear()
    after = rank(store, scored)
    assert counted["compared"] == everything
    assert after.tables["one"] != first.tables["one"]


def spoil_samples(store: ArtifactStore, asset: str, partition: str) -> None:
    """Rot the answers that a name of scores stands for, or mend them; nothing remembers them."""
    ref = store.ref(asset, partition)
    assert ref is not None
    attempt = store.get("scores", ref.digest).manifest["attempt"]
    path = Path(store.uri.removeprefix("file://")) / "attempts" / attempt / "samples.parquet"
    path.chmod(0o644)
    path.write_bytes(bytes(each ^ 0xFF for each in path.read_bytes()))
    scoring._opened.clear()  # pyright: ignore[reportPrivateUsage]


def test_samples_that_rotted_since_are_noticed_where_they_are_compared_anew(
    store: ArtifactStore, scored: Contest, counted: Counter[str]
) -> None:
    rank(store, scored)
    spoil_samples(store, "model_scores/one", "base")
    rank(store, scored)  # nothing is compared, and what stands there was made from sound bytes
    made = names.merged_checkpoint("ties"), names.scores("ties")
    score(store, scored, *made, "x|e1+e2", "another")
    after = rank(store, scored)
    told = " ".join(after.problems.values())
    assert "base" in " ".join(after.problems) + told
    assert "are not those published" in told or "other bytes than were published" in told


def test_a_champion_reads_its_own_recipe_and_the_experts(
    store: ArtifactStore, scored: Contest, counted: Counter[str]
) -> None:
    rank(store, scored)
    counted.clear()
    scoring._opened.clear()  # pyright: ignore[reportPrivateUsage]
    promoted = promote(store, scored, scored.recipe("ties"), "cpu", 1)
    assert promoted is not None
    assert promoted.candidate.recipe == "ties"
    of_one = 1 + len(EXPERTS) + len(SETS)
    assert counted["scores.json"] == of_one
    assert counted["samples.parquet"] <= 3
    promote(store, scored, scored.recipe("dare"), "cpu", 1)
    assert counted["scores.json"] == of_one + len(SETS)


def skilled(least: float, most: float) -> str:
    """A name whose made-up answers are right in about such a share."""
    tried = (f"skill {number}" for number in itertools.count())
    return next(each for each in tried if least < random.Random(each).uniform(0.2, 0.9) < most)


def test_a_promotion_reads_what_it_compares_once_and_decodes_their_items_once(
    store: ArtifactStore,
    scored: Contest,
    counted: Counter[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is compared is read once, and the others for the optimism of a new champion alone."""
    items, seen = samples.Items, list[object]()
    monkeypatch.setattr(samples, "_seen", [])
    monkeypatch.setattr(samples, "Items", lambda rows: seen.append(made := items(rows)) or made)
    monkeypatch.setattr(type(store.upkeep), "manifests", lambda _: pytest.fail("all were listed"))
    for name in EXPERTS:
        score(store, scored, "model", "model_scores/one", name, skilled(0.2, 0.3))
    made = names.merged_checkpoint("ties"), names.scores("ties")
    score(store, scored, *made, "x|e1+e2", skilled(0.85, 0.9))
    promoted = promote(store, scored, scored.recipe("ties"), "cpu", 1)
    assert isinstance(promoted, ranking.Promotion)
    assert promoted.changed
    assert promoted.optimism is not None
    of_one = 1 + len(EXPERTS) + len(SETS)
    assert len(SETS) < counted["samples.parquet"] <= len(SETS) + len(EXPERTS)
    assert len(seen) == 1
    opened = scoring._opened.values()  # pyright: ignore[reportPrivateUsage]
    assert len(opened) == of_one
    assert not any("_read" in vars(each) for each in opened)


def test_rotten_answers_hold_a_promotion_that_they_decide_and_no_other(
    store: ArtifactStore, scored: Contest
) -> None:
    """The answers of a candidate that is not the best are asked for its luck alone."""
    for name in EXPERTS:
        score(store, scored, "model", "model_scores/one", name, skilled(0.2, 0.3))
    made = names.merged_checkpoint("ties"), names.scores("ties")
    for each in SETS:
        score(store, scored, *made, f"x|{each}", skilled(0.2, 0.3))
    score(store, scored, *made, "x|e1+e2", skilled(0.85, 0.9))
    spoil_samples(store, names.scores("ties"), "x|e1+e2")
    held = promote(store, scored, scored.recipe("ties"), "cpu", 1)
    assert isinstance(held, ranking.Held)
    assert held.fault
    assert held.reason.startswith("scores of ties e1+e2 x: DamagedArtifactError: ")
    spoil_samples(store, names.scores("ties"), "x|e1+e2")
    spoil_samples(store, names.scores("ties"), "x|e1+e3")
    promoted = promote(store, scored, scored.recipe("ties"), "cpu", 1)
    assert isinstance(promoted, ranking.Promotion)
    assert promoted.changed
    assert promoted.optimism is None
