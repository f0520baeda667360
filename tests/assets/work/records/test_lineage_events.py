"""Merges that an endpoint of OpenLineage is told of; one that does not answer stops none."""

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from assets.work.merging.merging import MergeJob
from assets.work.records.noted_changes import note_change, pull_noted
from assets.work.records.noted_merges import merge_noted
from assets.work.upstream.entries import UpstreamModel
from merge_ops.recipes.reading import parse_recipe
from merge_ops.recipes.steps import Steps
from merge_ops.stream.stream import StreamSettings
from resources.errors import MissingArtifactError, MissingSourceError
from resources.outbound import LineageEndpoint, endpoint_of_environment
from resources.store import ArtifactStore
from tests.merges.store_merges import pull_family
from tests.models.checkpoint_factory import LLAMA, Family, write_family
from tests.resources.hub_server import send, serving

RECIPE = "merge_method: linear\nparameters: {weight: 0.5}\nexperts: all\n"
RUN = "2b4c0b5e-0c5b-4b3e-9f0a-6d1a3a3f0c11"


@dataclass
class Collector:
    """Events that came, with the header of who sent them."""

    address: str = ""
    status: int = 200
    held: threading.Event = field(default_factory=threading.Event)
    events: list[dict] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    pytest.importorskip("openlineage.client")
    found = Collector()
    found.held.set()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            found.held.wait()
            found.events.append(json.loads(data))
            found.keys.append(self.headers.get("Authorization", ""))
            send(self, found.status, b"", {}, True)

        def log_message(self, *_: object) -> None:
            pass

    with serving(Handler) as address:
        found.address = address
        monkeypatch.setenv("OPENLINEAGE_URL", address)
        monkeypatch.setenv("OPENLINEAGE_API_KEY", "a key of a test")
        yield found
        found.held.set()


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return write_family(tmp_path_factory.mktemp("models"), LLAMA, experts=2)


def job_of(store: ArtifactStore, family: Family) -> MergeJob:
    experts = pull_family(store, family)
    recipe = parse_recipe(RECIPE, "mean", "mean.yaml")
    (point,) = recipe.coefficients()
    points = {point.id: f"{point.id}|{'+'.join(experts)}"}
    asset = "mean/merged_checkpoint"
    return MergeJob(Steps((recipe,)), "base", "+".join(experts), points, asset)


def test_a_merge_is_told_as_a_run_with_its_inputs_and_outputs(
    collector: Collector, tmp_path: Path, family: Family
) -> None:
    store = ArtifactStore.open((tmp_path / "store").as_uri(), catalog="team")
    job, warnings, endpoint = job_of(store, family), [], LineageEndpoint()
    settings = StreamSettings(threads=1, device="cpu")
    merged = merge_noted(store, job, settings, None, RUN, warnings.append, endpoint)
    assert warnings == []
    start, complete = collector.events
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert start["run"]["runId"] == complete["run"]["runId"]
    assert complete["job"] == {**complete["job"], "namespace": "ronghe", "name": job.asset}
    assert complete["schemaURL"].startswith("https://openlineage.io/spec/2-")
    used = {
        each["name"]: each["facets"]["version"]["datasetVersion"] for each in complete["inputs"]
    }
    assert used == {f"model/{name}": digest for name, digest in merged.inputs.items()}
    (made,) = complete["outputs"]
    assert (made["namespace"], made["name"]) == (store.uri, f"mean[default|{job.expert_set}]")
    digest = merged.checkpoints[0].artifact.digest
    assert made["facets"]["version"]["datasetVersion"] == digest
    assert set(collector.keys) == {"Bearer a key of a test"}

    failing = replace(job, expert_set="nobody")
    with pytest.raises(MissingArtifactError, match="model 'nobody' is not in artifact store"):
        merge_noted(store, failing, settings, None, RUN, warnings.append, endpoint)
    assert collector.events[-1]["eventType"] == "FAIL"
    assert "nobody" in collector.events[-1]["run"]["facets"]["errorMessage"]["message"]

    # An endpoint that does not answer costs a warning and one wait, and no merge.
    collector.held.clear()
    late = LineageEndpoint()
    monkeypatched = late.wait
    late.wait = lambda seconds=0.05: monkeypatched(seconds)  # type: ignore[method-assign]
    for _ in range(2):
        again = merge_noted(store, job, settings, None, RUN, warnings.append, late)
        assert again.checkpoints[0].artifact.digest == digest
    told = "not every event of OpenLineage was taken by its endpoint (it does not answer in time)"
    assert warnings == [told]


def test_pulls_and_changes_of_champions_are_told_too(
    collector: Collector, tmp_path: Path, family: Family
) -> None:
    store = ArtifactStore.open((tmp_path / "store").as_uri(), catalog="team")
    endpoint, warnings = LineageEndpoint(), list[str]()
    model = UpstreamModel("m", str(family.base))
    said = (warnings.append, warnings.append)
    pulled = pull_noted(store, model, tmp_path, RUN, None, *said, endpoint=endpoint)
    start, complete = collector.events
    assert [start["eventType"], complete["eventType"]] == ["START", "COMPLETE"]
    assert start["run"]["runId"] == complete["run"]["runId"] != RUN
    (made,) = complete["outputs"]
    assert (made["name"], made["namespace"]) == ("model/m", store.uri)
    assert made["facets"]["version"]["datasetVersion"] == pulled.artifact.digest
    (used,) = complete["inputs"]
    assert used["facets"]["version"]["datasetVersion"] == pulled.revision
    absent = UpstreamModel("gone", str(tmp_path / "gone"))
    with pytest.raises(MissingSourceError, match="gone"):
        pull_noted(store, absent, tmp_path, RUN, None, *said, endpoint=endpoint)
    assert collector.events[-1]["eventType"] == "FAIL"

    seen = len(collector.events)
    candidate = {"digest": "ab", "experts": "e1+e2", "coefficient": "x=1"}
    event = {"event": "promotion", "recipe": "ties", "champion": "ab", "candidate": candidate}
    assert note_change(store, event, RUN, endpoint) is None
    start, complete = collector.events[seen:]
    assert complete["job"]["name"] == "ties/champion"
    assert [each["name"] for each in complete["inputs"]] == ["ties[x=1|e1+e2]"]
    assert [each["name"] for each in complete["outputs"]] == ["ties/champion"]
    for changed in ({"event": "refusal"}, {"champion": None}):  # nothing changed, or none is left
        assert note_change(store, event | changed, RUN, endpoint) is None
    assert len(collector.events) == seen + 2
    assert warnings == []


def test_without_an_address_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENLINEAGE_URL", raising=False)
    endpoint_of_environment.cache_clear()
    assert endpoint_of_environment() is None
    monkeypatch.setenv("OPENLINEAGE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("OPENLINEAGE_DISABLED", "true")
    endpoint_of_environment.cache_clear()
    assert endpoint_of_environment() is None
    endpoint_of_environment.cache_clear()
