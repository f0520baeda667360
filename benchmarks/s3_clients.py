"""What benchmarks/s3_throughput.py runs, each in a process of its own:

    python -m benchmarks.s3_clients CLIENT WHAT RESULT.json STORE
    python -m benchmarks.s3_clients fill STORE BASE EXPERT …

CLIENT is a plain client (a key of CLIENTS) or `ronghe`; WHAT is `read` (all
models of the store), `write` (as many bytes as a merge writes) or `copy` (both at once: the least
that a merge on S3 could do); `ronghe merge` merges the models instead. Seconds are those of the
work itself, without imports and without the first contact.
"""

import json
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local
from typing import Any, NamedTuple

from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore

RANGE, STEP = 8 << 20, 1 << 20
READERS, WRITERS = 4, 4
MODELS = ("base", "expert-1", "expert-2")

ReadRange = Callable[[str, int, int, memoryview], None]
Upload = Callable[[str, Iterator[bytes]], None]


class Client(NamedTuple):
    """A plain client: read (key, offset, bytes) through a buffer; write an object from parts.

    It asks for ranges as large as the buffer, or with `whole` for files at once.
    """

    read: ReadRange
    upload: Upload
    whole: bool = False


def botocore_client(bucket: str, settings: Any, stream: bool = False) -> Client:
    """botocore with its body's readinto, by ranges or whole files; parts uploaded by threads."""
    from resources.places.s3.client import Timeouts, make_client

    client = make_client(settings, Timeouts(), READERS + WRITERS)

    def read(key: str, offset: int, size: int, buffer: memoryview) -> None:
        last = offset + size - 1
        body = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={offset}-{last}")["Body"]
        done = 0
        while done < size:
            at = done % len(buffer)
            done += body.readinto(buffer[at : at + min(size - done, STEP if stream else RANGE)])

    def upload(key: str, parts: Iterator[bytes]) -> None:
        names = {"Bucket": bucket, "Key": key}
        names["UploadId"] = client.create_multipart_upload(**names)["UploadId"]

        def one(numbered: tuple[int, bytes]) -> dict[str, Any]:
            number, part = numbered
            tag = client.upload_part(**names, PartNumber=number, Body=part)["ETag"]
            return {"PartNumber": number, "ETag": tag}

        with ThreadPoolExecutor(WRITERS) as pool:
            done = list(pool.map(one, enumerate(parts, 1)))
        client.complete_multipart_upload(**names, MultipartUpload={"Parts": done})

    return Client(read, upload, whole=stream)


def obstore_client(bucket: str, settings: Any, stream: bool = False) -> Client:
    """obstore: get_range, or a stream of one range; open_writer."""
    import obstore
    from obstore.store import S3Store

    keys = settings.credentials.get_frozen_credentials()
    store = S3Store(
        bucket, endpoint=settings.endpoint, region=settings.region, access_key_id=keys.access_key,
        secret_access_key=keys.secret_key, client_options={"allow_http": True},
    )  # fmt: skip

    def read(key: str, offset: int, size: int, buffer: memoryview) -> None:
        if not stream:
            buffer[:size] = memoryview(obstore.get_range(store, key, start=offset, length=size))
            return
        done = 0
        span = (offset, offset + size)
        for part in obstore.get(store, key, options={"range": span}).stream(min_chunk_size=STEP):
            data = memoryview(part)
            buffer[done : done + len(data)] = data
            done += len(data)

    def upload(key: str, parts: Iterator[bytes]) -> None:
        with obstore.open_writer(store, key, buffer_size=RANGE, max_concurrency=WRITERS) as file:
            for part in parts:
                file.write(part)

    return Client(read, upload)


def s3fs_client(bucket: str, settings: Any) -> Client:
    """s3fs: cat_file of a range; a file opened for writing."""
    import s3fs

    system: Any = s3fs.S3FileSystem(skip_instance_cache=True)

    def read(key: str, offset: int, size: int, buffer: memoryview) -> None:
        buffer[:size] = system.cat_file(f"{bucket}/{key}", start=offset, end=offset + size)

    def upload(key: str, parts: Iterator[bytes]) -> None:
        with system.open(f"{bucket}/{key}", "wb", block_size=RANGE) as file:
            for part in parts:
                file.write(part)

    return Client(read, upload)


CLIENTS: dict[str, Callable[[str, Any], Client]] = {
    "botocore": botocore_client,
    "botocore-stream": lambda bucket, settings: botocore_client(bucket, settings, stream=True),
    "obstore": obstore_client,
    "obstore-stream": lambda bucket, settings: obstore_client(bucket, settings, stream=True),
    "s3fs": s3fs_client,
}


def read_all(client: Client, files: dict[str, int]) -> None:
    """All files, by ranges or whole, several at once."""
    own = local()

    def one(job: tuple[str, int, int]) -> None:
        key, offset, size = job
        if not hasattr(own, "buffer"):
            own.buffer = memoryview(bytearray(RANGE))
        client.read(key, offset, size, own.buffer)

    jobs = [
        (key, offset, min(step, size - offset))
        for key, size in files.items()
        for step in [size if client.whole else RANGE]
        for offset in range(0, size, step)
    ]
    with ThreadPoolExecutor(READERS) as pool:
        list(pool.map(one, jobs))


def parts_of(size: int) -> Iterator[bytes]:
    """So many bytes in parts."""
    part = bytes(range(256)) * (RANGE // 256)
    for offset in range(0, size, RANGE):
        yield part[: min(RANGE, size - offset)]


def plain(name: str, what: str, store: ArtifactStore) -> Callable[[], None]:
    """The work of a plain client, which is made here."""
    place: Any = store.place
    models = [artifact_of(store, model) for model in MODELS]
    files = {
        place.names(artifact.key(file.path))["Key"]: file.size
        for artifact in models
        for file in artifact.files.values()
        if file.path.endswith(".safetensors")
    }
    size = models[0].files["model.safetensors"].size
    place.connection()
    client = CLIENTS[name](place.bucket, place._settings)
    output = f"plain/{uuid.uuid4().hex}"

    def work() -> None:
        with ThreadPoolExecutor(2) as pool:
            waiting = []
            if what in ("read", "copy"):
                waiting.append(pool.submit(read_all, client, files))
            if what in ("write", "copy"):
                waiting.append(pool.submit(client.upload, output, parts_of(size)))
            for each in waiting:
                each.result()

    return work


def own(what: str, store: ArtifactStore) -> Callable[[], None]:
    """Ronghe's own reading (as a stream reads: blocks of 1 MiB), writing, or a merge."""
    models = [artifact_of(store, model) for model in MODELS]
    size = models[0].files["model.safetensors"].size

    def read() -> None:
        sources = [artifact.source() for artifact in models]
        buffers = local()
        block = 1 << 20

        def one(offset: int) -> None:
            if not hasattr(buffers, "block"):
                buffers.block = memoryview(bytearray(block))
            for source in sources:
                view = buffers.block[: min(block, size - offset)]
                source.read_into("model.safetensors", offset, view)

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(one, range(123, size, block)))  # off the borders of pieces

    def write() -> None:
        with store.attempt("written") as attempt:
            with attempt.open("model.safetensors", size) as writer:
                for part in parts_of(size):
                    writer.write(part)
            attempt.publish(uuid.uuid4().hex)

    def merge() -> None:
        merge_family(store, list(MODELS[1:]), "linear", f"weight: {time.time() % 1:.6f}")

    if what == "merge":
        from tests.merges.store_merges import merge_family
    return {"read": read, "write": write, "merge": merge}[what]


def artifact_of(store: ArtifactStore, model: str) -> Artifact:
    """The model's artifact."""
    found = store.resolve("model", model)
    if found is None:
        raise SystemExit(f"{store.uri} has no model {model}")
    return found


def fill(uri: str, *folders: str) -> None:
    """Copy a base and its experts into a store."""
    from tests.merges.store_merges import pull_family
    from tests.models.checkpoint_factory import Family

    base, *experts = map(Path, folders)
    pull_family(ArtifactStore.open(uri), Family(base, tuple(experts)))


def main() -> None:
    """Do one work and write how long it took; or fill a store."""
    if sys.argv[1] == "fill":
        fill(*sys.argv[2:])
        return
    client, what, result, uri = sys.argv[1:]
    store = ArtifactStore.open(uri)
    work = own(what, store) if client == "ronghe" else plain(client, what, store)
    started, cpu = time.perf_counter(), time.process_time()
    work()
    figures = {"seconds": time.perf_counter() - started, "cpu": time.process_time() - cpu}
    Path(result).write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
