"""Large files of the Hub, brought into its own cache: a download that was killed goes on.

The Hub's client begins a file anew whenever its process ended, and does not compare what came. So
the files that the Hub has a SHA-256 of are downloaded here, into the places where it looks:

    models--owner--name/blobs/<sha256>.unfinished     what came so far
    models--owner--name/blobs/<sha256>                all of it, checked
    models--owner--name/snapshots/<commit>/<file>     a link to that
    .locks/models--owner--name/<sha256>.lock          the client's own lock of that blob
"""

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resources.errors import ModelSourceError
from resources.locks import opened_lock, take_lock
from resources.reading import Progress
from resources.upstream.hub_cache import ANSWER, file_sha256
from resources.upstream.local_copies import go_on

PARALLEL = 4
"""Files that are downloaded at once."""
LARGEST = 50 * 10**9
"""Bytes of a file that the Hub sends as one; larger ones are left to its client."""
_PIECE = 1 << 20
_TRIES, _PAUSE = 5, 1.0  # without a byte in between; see docs/timeouts.md
_PART = 206  # the HTTP status of a part of a file


@dataclass(frozen=True)
class LargeFile:
    """A large file of a model: its name, its size, its SHA-256, and its address."""

    name: str
    size: int
    sha256: str
    url: str


def large_files(
    listed: Mapping[str, Any], wanted: Sequence[str], url: Callable[[str], str]
) -> list[LargeFile]:
    """Return the wanted files that the Hub lists with a SHA-256, those that its answers can hold.

    `listed` are the Hub's own entries by file.
    """
    found: list[LargeFile] = []
    for name in wanted:
        lfs = getattr(listed[name], "lfs", None)
        sha256, size = getattr(lfs, "sha256", None), getattr(lfs, "size", None)
        if isinstance(sha256, str) and isinstance(size, int) and 0 < size <= LARGEST:
            found.append(LargeFile(name, size, sha256.lower(), url(name)))
    return found


def download_large(
    folder: Path, commit: str, files: Sequence[LargeFile], where: str, progress: Progress | None
) -> None:
    """Bring files of a commit into a model's folder of the cache, those that are not there.

    `where` names the model in messages. Raises ModelSourceError where a file came with other bytes
    than the Hub says it has, or ended too early; what else came stays for the next try.
    """
    snapshot = folder / "snapshots" / commit
    missing = [each for each in files if not (snapshot / each.name).is_file()]
    total, done = sum(each.size for each in missing), 0
    counting, stop = threading.Lock(), threading.Event()

    def count(more: int) -> None:
        nonlocal done
        with counting:
            done += more
            if progress:
                progress(done, total)

    with ThreadPoolExecutor(PARALLEL) as pool:
        work = [pool.submit(_download, folder, snapshot, f, where, count, stop) for f in missing]
        try:
            for each in as_completed(work):
                each.result()
        except BaseException:
            stop.set()
            for each in work:
                each.cancel()
            raise


def _download(
    folder: Path,
    snapshot: Path,
    file: LargeFile,
    where: str,
    count: Callable[[int], None],
    stop: threading.Event,
) -> None:
    """One file: from where an earlier try broke off, checked, and linked to."""

    def check(_: str, path: Path) -> None:
        if file_sha256(path) != file.sha256:
            raise ModelSourceError(
                f"model source {where}: {file.name} arrived with other bytes than are there (its "
                "SHA-256 differs); it was removed. Check the network and HF_ENDPOINT, and run again"
            )

    def pieces(_: str, start: int) -> Iterator[memoryview]:
        return _pieces(file, start, where, stop)

    blob, pointer = folder / "blobs" / file.sha256, snapshot / file.name
    lock = folder.parent / ".locks" / folder.name / f"{file.sha256}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with opened_lock(lock) as opened:
        take_lock(opened, lock, f"the download of {file.name} of {where}")
        for more in go_on(blob, file.name, file.size, pieces, check):
            count(more)
        _link(pointer, blob)


def _link(pointer: Path, blob: Path) -> None:
    """Let a snapshot's file be a blob, as the client does: by a link, else by moving it."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    if pointer.is_file():
        return
    pointer.unlink(missing_ok=True)  # a link to a blob that somebody removed
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:  # a file system without links
        blob.replace(pointer)


def _pieces(file: LargeFile, start: int, where: str, stop: threading.Event) -> Iterator[memoryview]:
    """The file's bytes from `start`; an answer that breaks off is asked for again."""
    at, silent = start, 0
    while at < file.size:
        came = at
        try:
            for piece in _answer(file.url, at):
                if stop.is_set():
                    raise ModelSourceError(f"model source {where}: the download was stopped")
                kept = piece[: file.size - at]
                yield memoryview(kept)
                at += len(kept)
        except Exception as error:
            if not _is_of_network(error) or (at == came and silent + 1 == _TRIES):
                raise
        silent = silent + 1 if at == came else 0
        if silent == _TRIES:
            raise ModelSourceError(
                f"model source {where}: {file.name} ended {file.size - at:,} bytes too early; run"
                " again, it goes on from there"
            )
        if silent:
            time.sleep(_PAUSE * 2 ** (silent - 1))


def _answer(url: str, start: int) -> Iterator[bytes]:
    """The body of one answer, without what a server sends that gives no parts."""
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={start}-"} if start else {}
    with get_session().stream("GET", url, headers=headers, timeout=ANSWER) as answer:
        if answer.is_error:
            answer.read()
        hf_raise_for_status(answer)
        skip = start if answer.status_code != _PART else 0
        for piece in answer.iter_bytes(_PIECE):
            yield piece[skip:]
            skip = max(0, skip - len(piece))


def _is_of_network(error: Exception) -> bool:
    """Whether an answer broke off, or did not come, whatever HTTP library the client uses."""
    kinds = {each.__name__ for each in type(error).__mro__}
    return bool(kinds & {"TransportError", "TimeoutException", "ConnectionError"})
