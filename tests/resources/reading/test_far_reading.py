"""Files on S3 read by blocks: few requests, little memory, and answers that stay open."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from resources.places.s3.bodies import Watch
from resources.places.s3.place import S3Place
from resources.reading.artifact_source import read_ahead
from resources.store.artifact import Artifact
from resources.store.artifact_store import ArtifactStore
from tests.resources.processes import line, program

BLOCK = 700_001
DATA = b"".join(number.to_bytes(4, "big") for number in range(6 << 20))  # 24 MiB


@pytest.fixture
def far(s3_root: str) -> ArtifactStore:
    """A store on a real server."""
    return ArtifactStore.open(s3_root)


def publish(store: ArtifactStore, files: int = 1) -> Artifact:
    """Files "0", "1", … of the same bytes."""
    with store.attempt("checkpoint") as attempt:
        for number in range(files):
            attempt.write_bytes(str(number), DATA)
        artifact = attempt.publish("some-digest")
    artifact.piece_digests("0")  # fetched once, and no concern of these tests
    return artifact


def place_of(store: ArtifactStore) -> S3Place:
    """The store's place."""
    place = store.place
    assert isinstance(place, S3Place)
    return place


def asked_of(store: ArtifactStore) -> list[tuple[int, int]]:
    """Where every request for bytes from now on will have begun and ended."""
    asked: list[tuple[int, int]] = []

    def note(request: Any, **_: Any) -> None:
        first, _, last = request.headers["Range"].decode().removeprefix("bytes=").partition("-")
        asked.append((int(first), int(last) + 1))

    events = place_of(store).bucket.connection().client.meta.events
    events.register("before-send.s3.GetObject", note)
    return asked


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run `work` with each number below `count` at once; raises what one of them raises."""
    errors: list[BaseException] = []

    def one(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


@pytest.mark.parametrize("threads", [1, 3])
def test_blocks_of_a_file_come_by_few_requests(far: ArtifactStore, threads: int) -> None:
    artifact = publish(far)
    asked = asked_of(far)
    offsets, taking = iter(range(99, len(DATA), BLOCK)), threading.Lock()

    def work(_: int) -> None:
        buffer = memoryview(bytearray(BLOCK))
        while True:
            with taking:
                offset = next(offsets, None)
            if offset is None:
                return
            view = buffer[: min(BLOCK, len(DATA) - offset)]
            source.read_into("0", offset, view)
            assert view == DATA[offset : offset + len(view)]

    with artifact.source() as source:
        in_threads(threads, work)
        assert read_ahead().kept_bytes < 1 << 20, "only what blocks share was kept"
    assert len(asked) <= 5
    assert sum(last - first for first, last in asked) == len(DATA), "nothing is sent twice"


def test_open_answers_are_bounded_and_closed(far: ArtifactStore) -> None:
    artifact = publish(far, files=4)
    parked = place_of(far).bucket.connection().parked
    parked.most = 2
    buffer = memoryview(bytearray(BLOCK))
    with artifact.source() as source:
        for offset in range(0, 6 * BLOCK, BLOCK):
            for file in "0123":
                source.read_into(file, offset, buffer)
                assert buffer == DATA[offset : offset + BLOCK]
                assert len(parked) <= 2
        assert len(parked) == 2
    assert len(parked) == 0


def test_an_answer_nobody_reads_on_makes_room(far: ArtifactStore) -> None:
    artifact = publish(far, files=2)
    parked = place_of(far).bucket.connection().parked
    parked.most = 1
    parked.idle = 0.0
    buffer = memoryview(bytearray(BLOCK))
    readers = list[object]()
    with artifact.source() as source:
        for file in "01":
            for offset in range(0, 3 * BLOCK, BLOCK):
                source.read_into(file, offset, buffer)
            (reader,) = (reader for reader, _ in parked.waiting())
            readers.append(reader)
    first, second = readers
    assert first is not second


def test_an_answer_that_broke_off_while_it_waited(far: ArtifactStore) -> None:
    artifact = publish(far)
    parked = place_of(far).bucket.connection().parked
    asked = asked_of(far)
    buffer = memoryview(bytearray(BLOCK))
    broken = 0
    with artifact.source() as source:
        for offset in range(5, len(DATA) - BLOCK, BLOCK):
            source.read_into("0", offset, buffer)
            assert buffer == DATA[offset : offset + BLOCK]
            if offset > len(DATA) // 2 and not broken:
                for _, body in parked.waiting():
                    body.cut()
                    broken += 1
    assert broken == 1
    assert len(asked) > 2


def test_a_source_left_open_at_the_end_of_a_process_is_silent(far: ArtifactStore) -> None:
    publish(far)
    with program("leave_open", far.uri) as process:
        assert line(process) == "ready"
        assert process.stderr is not None
        assert process.stderr.read() == ""
        assert process.wait() == 0


def test_two_sequences_in_one_file_stay_apart(far: ArtifactStore) -> None:
    artifact = publish(far)
    asked = asked_of(far)
    buffer = memoryview(bytearray(BLOCK))
    half = len(DATA) // 2
    with artifact.source() as source:
        for step in range(0, half - BLOCK, BLOCK):
            for offset in (step, half + step):
                source.read_into("0", offset, buffer)
                assert buffer == DATA[offset : offset + BLOCK]
    assert len(asked) <= 10


def test_ranges_far_apart_fetch_their_pieces_only(far: ArtifactStore) -> None:
    artifact = publish(far)
    asked = asked_of(far)
    piece = 256 << 10
    with artifact.source() as source:
        for offset in (20 << 20, 10 << 20, 3):
            buffer = memoryview(bytearray(1000))
            source.read_into("0", offset, buffer)
            assert buffer == DATA[offset : offset + 1000]
    assert asked == [(20 << 20, (20 << 20) + piece), (10 << 20, (10 << 20) + piece), (0, piece)]


def test_a_watch_cuts_what_is_late_and_nothing_else() -> None:
    watch, cut = Watch(), threading.Event()
    with watch.limit(3600.0, cut.set) as patient:
        with watch.limit(0.02, cut.set) as late:
            cut.wait()
        assert late.is_set()
        assert not patient.is_set()
        assert len(watch) == 1
    assert len(watch) == 0, "what ended in time is watched no longer"
