"""What tests run in processes of their own: `python -m tests.resources.store_worker WHAT URI …`."""

import itertools
import pathlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

from resources.errors import ResourceError
from resources.store.artifact_store import ArtifactStore
from resources.upstream.model_sources import open_model_source


def publish(uri: str, go: str, content: str) -> None:
    """Write an artifact, wait for the file `go`, publish under one digest, print the outcome."""
    with ArtifactStore.open(uri).attempt("scores") as attempt:
        attempt.write_bytes("scores.json", content.encode())
        print("ready", flush=True)
        _wait_for(go)
        try:
            print(attempt.publish("shared-digest").manifest["attempt"], flush=True)
        except ResourceError as error:
            print(type(error).__name__, flush=True)


def hang(uri: str, digest: str | None = None) -> None:
    """Write one file and half of another, then wait to be killed."""
    attempt = ArtifactStore.open(uri).attempt("checkpoint", digest)
    attempt.write_bytes("config.json", b"{}")
    with attempt.open("model.safetensors", 20 << 20) as writer:
        writer.write(bytes(10 << 20))
        print("ready", flush=True)
        time.sleep(600)


def publish_on_and_on(uri: str) -> None:
    """Publish one artifact after the other, until killed."""
    store = ArtifactStore.open(uri)
    print("ready", flush=True)
    for number in itertools.count():
        with store.attempt("checkpoint") as attempt:
            attempt.write_bytes("model.safetensors", number.to_bytes(4, "big") * 50_000)
            attempt.write_json("config.json", {"number": number})
            artifact = attempt.publish(f"number-{number:08}")
        store.point("model", "latest", artifact.kind, artifact.digest)


def pull(uri: str, cache: str, go: str) -> None:
    """Pull the artifact into `cache` once the file `go` is there; print its folder."""
    store = ArtifactStore.open(uri, cache=Path(cache))
    artifact = store.get("checkpoint", "shared-digest")
    print("ready", flush=True)
    _wait_for(go)
    print(artifact.folder(), flush=True)


def leave_open(uri: str) -> None:
    """Read a little, and leave the source where Python looks after it took our modules apart."""
    source = ArtifactStore.open(uri).get("checkpoint", "some-digest").source()
    source.read_into("0", 0, memoryview(bytearray(700_001)))
    source.read_into("0", 700_001, memoryview(bytearray(700_001)))
    vars(pathlib)["left open"], vars(sys)["kept"] = source, dict(sys.modules)
    print("ready", flush=True)


def copy_from_hub(model: str, uri: str) -> None:
    """Copy an hf:// model into an artifact; print its revision and files, or the error."""
    store = ArtifactStore.open(uri)
    try:
        source = open_model_source(model, Path())
        print(source.revision())
        with store.attempt("checkpoint") as attempt:
            source.copy_to(attempt)
            print(" ".join(attempt.publish().files))
    except ResourceError as error:
        print(f"{type(error).__name__}: {error}")


def _wait_for(go: str) -> None:
    while not Path(go).exists():
        time.sleep(0.001)


WORKS: dict[str, Callable[..., None]] = {
    work.__name__: work
    for work in (publish, hang, publish_on_and_on, pull, leave_open, copy_from_hub)
}

if __name__ == "__main__":
    WORKS[sys.argv[1]](*sys.argv[2:])
