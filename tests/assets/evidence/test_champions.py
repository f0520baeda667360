"""A champion's page names the champion, and is not green where nothing was scored."""

from pathlib import Path

import dagster as dg
import pytest

from assets.evidence.champions import _check, _metadata
from assets.work import names
from assets.work.ranking.ranking import Held, Promotion
from eval_ops.scores.leaderboard import Entry
from eval_ops.scores.scores import Sample, SuiteScores, summarize
from resources.store import Artifact, ArtifactStore


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore.open((tmp_path / "store").as_uri(), catalog="team")


@pytest.fixture
def champion(store: ArtifactStore) -> Artifact:
    with store.attempt("checkpoint") as attempt:
        attempt.write_bytes("config.json", b"{}")
        made = attempt.publish()
    said = {"experts": "herbs+idioms", "coefficient": "lambda=0.5", "test_mean": 0.75}
    store.point(names.champion("ties"), None, "checkpoint", made.digest, **said)
    return made


def candidate(label_digest: str) -> Entry:
    samples = tuple(
        Sample("b", split, f"{split}{n}", float(n < 3))
        for split in ("validation", "test")
        for n in range(4)
    )
    scores = SuiteScores("one", "d" * 64, summarize(samples, "acc", "1"), samples)
    experts = ("herbs", "times")
    return Entry("candidate", "x", scores, "ties", experts, "lambda=1.0", label_digest)


def shown(value: object) -> object:
    return value.value if isinstance(value, dg.MetadataValue) else value


def test_the_page_names_the_champion_and_not_only_who_wanted_to_be_it(
    store: ArtifactStore, champion: Artifact
) -> None:
    promotion = Promotion(candidate("c" * 64), None, champion, False, ("it stays",))
    page = {name: shown(value) for name, value in _metadata(store, "ties", promotion).items()}
    assert page["champion"] == "ties at lambda=0.5: herbs+idioms"
    assert page["expert set"] == "herbs+idioms"
    assert page["coefficient"] == "lambda=0.5"
    assert page["test mean when it was promoted"] == 0.75
    assert page["digest"] == champion.digest
    assert page["size"] == "0.0 kB"
    assert "lambda=1.0" in str(page["candidate"]), "who it was not"
    assert page["candidate's test mean"] == 0.75
    assert _check(promotion).passed


def test_what_the_page_says_of_loading_finds_the_folder(
    store: ArtifactStore, champion: Artifact
) -> None:
    held = Held("it could not be judged", champion, fault=False)
    text = str(shown(_metadata(store, "ties", held)["how to load it"]))
    lines = [line for line in text.split("\n") if "transformers" not in line]
    found: dict[str, object] = {}
    exec("\n".join(line for line in lines if not line.startswith(("```", "model", "tok"))), found)
    assert (Path(str(found["folder"])) / "config.json").read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("promotion", "severity", "problem"),
    [
        (None, dg.AssetCheckSeverity.WARN, "no candidate of this recipe is scored"),
        (Held("suite x is broken", None, False), dg.AssetCheckSeverity.WARN, "suite x is broken"),
        (Held("scores are damaged", None, True), dg.AssetCheckSeverity.ERROR, "are damaged"),
    ],
)
def test_no_champion_is_green_without_scores(
    store: ArtifactStore, promotion: Held | None, severity: dg.AssetCheckSeverity, problem: str
) -> None:
    check = _check(promotion)
    assert not check.passed
    assert check.severity is severity
    assert problem in str(shown(check.metadata["problems"]))
    assert str(shown(_metadata(store, "ties", promotion)["champion"])).startswith("none")
