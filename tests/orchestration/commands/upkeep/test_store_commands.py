"""`ronghe verify`, `ronghe gc` and `ronghe refs`, on a local store and on SeaweedFS alike."""

import json
import re
import time
from pathlib import Path

import pytest

from orchestration.commands import cli
from orchestration.settings import NAMES
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.resources.processes import line, worker


class Program:
    """`ronghe` on one store, in this process."""

    def __init__(
        self, store: ArtifactStore, patch: pytest.MonkeyPatch, printed: pytest.CaptureFixture[str]
    ) -> None:
        self.store = store
        self._patch = patch
        self._printed = printed
        for name in NAMES:
            patch.delenv(name, raising=False)
        patch.setenv("RONGHE_STORE", store.uri)
        patch.setenv("RONGHE_CATALOG_NAME", "ours")
        store.namespace.catalog = "ours"

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, what it printed, and its errors."""
        self._patch.setattr("sys.argv", ["ronghe", *arguments])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        printed = self._printed.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    def publish(self, kind: str, data: bytes) -> Artifact:
        """One artifact of one file."""
        with self.store.attempt(kind) as attempt:
            attempt.write_bytes("model.safetensors", data)
            return attempt.publish()


@pytest.fixture
def program(
    store: ArtifactStore, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Program:
    return Program(store, monkeypatch, capsys)


def test_verify_says_which_artifacts_are_damaged(program: Program) -> None:
    store = program.store
    status, _, err = program("verify")
    assert status == 2
    assert "nothing was ever kept there" in err
    good, changed, missing, model = (
        program.publish(kind, data)
        for kind, data in (("checkpoint", b"good"), ("checkpoint", b"changed"),
                           ("checkpoint", b"missing"), ("model", b"model"))
    )  # fmt: skip
    status, out, err = program("verify")
    assert (status, err) == (0, "")
    assert f"4 of 4 artifacts in {store.uri} are as published (0.0 MB hashed)" in out

    store.place.delete([changed.key("model.safetensors"), missing.key("model.safetensors")])
    store.place.put(changed.key("model.safetensors"), b"CHANGED")
    store.place.put(f"artifacts/model/{model.digest}/manifest.json", b"{")
    status, out, err = program("verify")
    assert (status, err) == (1, "")
    text = re.sub(r"\s+", "", out)
    assert "1of4artifacts" in text
    for digest in (changed.digest, missing.digest, model.digest):
        assert digest in text
    assert good.digest not in text
    assert "hasotherbytesthanwerepublished" in text
    assert "themanifestisnoJSON" in text

    assert program("verify", good.digest[:12])[0] == 0
    assert program("verify", good.digest, changed.digest)[0] == 1
    assert program("verify", "--kind", "model")[0] == 1
    status, out, _ = program("verify", "--kind", "checkpoint", good.digest)
    assert status == 0
    assert "1 of 1 artifacts" in out


def test_gc_lists_then_removes_what_a_killed_writer_left(program: Program) -> None:
    store = program.store
    kept = program.publish("checkpoint", b"kept")
    with worker("hang", store.uri) as process:
        assert line(process) == "ready"
        while store.uri.startswith("s3:") and not store.place.pending("attempts")[0].size:
            time.sleep(0.01)  # the first part is on its way
        process.kill()
        process.wait()
    before = [entry.key for entry in store.place.walk("attempts")]

    status, out, err = program("gc")
    assert (status, err) == (0, "")
    assert f"0.0 MB removed from {store.uri}; 2 attempts stay" in out
    status, out, _ = program("gc", "--dry-run", "--grace", "0s")
    assert status == 0
    assert "to be removed" in out
    assert re.search(r"[0-9a-f]{32} +[23] +[01] +[0-9.]+ MB +\d+s", out), out
    assert re.search(
        rf"(10\.5|8\.4|5\.2) MB would be removed from {store.uri}; 1 attempts stay", out
    )
    assert [entry.key for entry in store.place.walk("attempts")] == before

    status, out, _ = program("gc", "--grace", "0s")
    assert status == 0
    assert re.search(rf"(10\.5|8\.4|5\.2) MB removed from {store.uri}; 1 attempts stay", out), out
    assert [each.key for each in store.place.walk("attempts")] == [kept.key("model.safetensors")]
    assert store.place.pending("attempts") == []
    assert "0.0 MB would be removed" in program("gc", "--dry-run", "--grace", "0s")[1]
    assert program("verify")[0] == 0


def test_ls_tells_which_names_it_cannot_list(program: Program) -> None:
    store, model = program.store, program.publish("model", b"model")
    for name in ("base", "e1"):
        store.point("model", name, "model", model.digest)
    damaged = store.upkeep.key_of("model", "e1")
    place = store.place.folder(damaged)
    if place is not None:
        place.unlink()
        place.mkdir()  # what is no file is damage of that one key
        assert f"not listed: {store.uri}/{damaged}: the ref is no JSON" in program("ls")[2]
        place.rmdir()
    store.place.put(damaged, b"{")
    status, out, err = program("ls")
    assert status == 1
    assert f"1 of 1 names in {store.uri}" in out
    assert f"not listed: {store.uri}/{damaged}: the ref is no JSON" in err
    status, out, err = program("ls", "--json")
    assert [each["name"] for each in json.loads(out)] == ["base"]
    assert (status, damaged in err) == (1, True)


def test_ls_tells_of_whom_it_lists_nothing(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = program.publish("model", b"model")
    program.store.point("model", "base", "model", model.digest)
    monkeypatch.setenv("RONGHE_CATALOG_NAME", "another")
    status, out, _ = program("ls")
    assert status == 0
    assert "0 of 0 names in" in out
    assert "catalog 'another' are asked for; the store holds names of" in out

    monkeypatch.delenv("RONGHE_CATALOG_NAME")
    for number, catalog in enumerate(("a file", "a dead link", "a folder of a dead link")):
        place = tmp_path / f"catalog{number}"
        if catalog == "a file":
            place.touch()
        elif catalog == "a dead link":
            place.symlink_to(tmp_path / "nowhere")
        else:
            place.mkdir()
            (place / "models.yaml").symlink_to(tmp_path / "nowhere")
        monkeypatch.setenv("RONGHE_CATALOG", str(place))
        status, out, err = program("ls")
        assert status == 2, catalog
        assert "RONGHE_CATALOG" in err, catalog
        assert "names in" not in out


def test_refs_tell_the_history(program: Program) -> None:
    first, second = program.publish("checkpoint", b"1"), program.publish("checkpoint", b"2")
    point = program.store.point
    point("ties/champion", "e1+e2", "checkpoint", first.digest, run="run-1", why="the first")
    point("ties/champion", "e1+e2", "checkpoint", second.digest, run="run-2", why="better")
    point("ties/champion", "e1+e3", "checkpoint", second.digest)
    status, out, err = program("refs", "ties/champion")
    assert (status, err) == (0, "")
    rows = [row.strip() for row in out.splitlines() if row.strip().startswith("e1+")]
    stamp = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    for row, (artifact, run, why) in zip(
        rows,
        [(first, "run-1", "why=the first"), (second, "run-2", "why=better"), (second, "–", "–")],
        strict=True,
    ):
        found = re.match(rf"e1\+e[23] +{stamp} +checkpoint +(\w+) +(\S+) +(.*\S)  +\S+@\S+$", row)
        assert found, row
        assert found.groups() == (artifact.digest[:12], run, why)
    status, out, _ = program("refs", "ties/champion", "e1+e3")
    assert status == 0
    assert "e1+e2" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["verify", "abc"], "NAME is 'abc'; give at least 6 characters of a digest"),
        (["verify", "0123456789"], "NAME is '0123456789'; .* has no such artifact"),
        (["verify", "--kind", "modle"], r"--kind is 'modle'. Did you mean 'model'\? .* model"),
        (["gc", "--grace", "soon"], "--grace is 'soon'; give a number and a unit, such as 90s"),
        (["gc", "--grace", "-1h"], "--grace is '-1h'; give a number"),
        (["refs", "modle"], "ASSET is 'modle', which has no refs in .*; materialize it first"),
        (["refs", "model", "bse"], r"PARTITION is 'bse'. Did you mean 'base'\? model has base"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    program = Program(ArtifactStore.open(tmp_path.as_uri()), monkeypatch, capsys)
    artifact = program.publish("model", b"base")
    program.store.point("model", "base", "model", artifact.digest)
    status, out, err = program(*arguments)
    assert (status, out) == (2, "")
    assert re.match(r"[A-Z]\w+Error: ", err), err
    assert re.search(message, err), err
    assert len(err.splitlines()) == 1


def test_a_store_that_cannot_be_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    program = Program(ArtifactStore.open(tmp_path.as_uri()), monkeypatch, capsys)
    for command in (["verify"], ["gc"], ["refs", "model"]):
        monkeypatch.setenv("RONGHE_STORE", "gs://bucket/x")
        status, out, err = program(*command)
        assert (status, out) == (2, "")
        assert "an artifact store with gs:// is not supported" in err


def test_a_mark_that_cannot_be_read_is_told_and_stays(program: Program) -> None:
    """It counts as a withdrawal: set aside, what was withdrawn would be used again."""
    artifact = program.publish("model", b"weights")
    program.store.marks.withdraw(artifact.digest, "bad data")
    assert program("verify")[0] == 0
    place, key = program.store.place, f"withdrawn/{artifact.digest}.json"
    place.delete([key])
    assert place.create(key, b"{")
    for options in ((), ("--repair",)):
        status, out, _ = program("verify", *options)
        told = " ".join(out.split())
        assert status == 1
        assert "the mark is no JSON" in told
        assert "withdraw the model again where it should stay withdrawn" in told
    assert "counts as withdrawn" in " ".join(program("verify")[1].split())
    assert artifact.digest in program.store.marks.withdrawn()
