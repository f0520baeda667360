"""A model on ModelScope (魔搭), pinned to a commit, by its public HTTP interface.

Two requests are all it takes: the list of files of a revision, and a file of it. Python's own HTTP
client makes them, which follows the usual proxy variables. Every file has a SHA-256 in the list.
"""

import contextlib
import hashlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

from blake3 import blake3

from resources.errors import (
    MissingSourceError,
    ModelSourceError,
    ResourceError,
    UnknownSchemeError,
)
from resources.reading import Progress
from resources.upstream.hub_cache import COMMIT
from resources.upstream.local_copies import SOURCES_VARIABLE, LocalCopies, copies_folder
from resources.upstream.source import FileSink, wanted_files

DEFAULT_ENDPOINT = "https://modelscope.cn"
_REPOSITORY = re.compile(r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^@\s]+))?")
_ANSWER = 30.0  # seconds: silence before and within an answer
_TRIES = 5  # in a row without one byte
_PAUSE = 0.5  # seconds before the second try, doubled for each one after
_PIECE = 4 << 20
_LARGEST_LIST = 64 << 20
_PART, _NOT_FOUND, _SERVER_ERROR = 206, 404, 500  # HTTP statuses


class _File(NamedTuple):
    """One file of the list: the commit that wrote it, its bytes, its SHA-256 (or nothing)."""

    revision: str
    size: int
    sha256: str


class _NoAnswerError(ModelSourceError):
    """No answer came, or one of 5xx: the same request may be answered later."""


class ModelScopeModel:
    """`owner/name` or `owner/name@revision`; a token comes from MODELSCOPE_API_TOKEN.

    MODELSCOPE_ENDPOINT (or the older MODELSCOPE_DOMAIN) names another address.
    """

    needs: str | None = None
    variable: str = SOURCES_VARIABLE

    def __init__(self, repository: str, cache: Path | None = None) -> None:
        parsed = _REPOSITORY.fullmatch(repository.strip("/"))
        if parsed is None or {"..", "."}.intersection(parsed["name"].split("/")):
            raise UnknownSchemeError(
                f"model source 'modelscope://{repository}' is no model of ModelScope: write "
                f"modelscope://owner/name, or modelscope://owner/name@revision with a branch, tag "
                f"or commit"
            )
        self.name = parsed["name"]
        self.location = f"modelscope://{repository.strip('/')}"
        self._revision = parsed["revision"] or "master"
        self._copies = LocalCopies(cache or copies_folder("modelscope", self.name), self.location)
        self._pinned: str | None = None
        self._files: dict[str, _File] | None = None

    @property
    def home(self) -> str:
        """Return the address that it is downloaded from."""
        asked = os.environ.get("MODELSCOPE_ENDPOINT") or os.environ.get("MODELSCOPE_DOMAIN")
        asked = (asked or DEFAULT_ENDPOINT).strip().rstrip("/")
        return asked if asked.startswith(("https://", "http://")) else f"https://{asked}"

    @property
    def kept_in(self) -> Path:
        """Return the folder that a download goes to."""
        return self._copies.root

    def revision(self, progress: Progress | None = None) -> str:
        """Return the commit; the blake3 of the list of files where ModelScope names no commit."""
        listed, latest = self._list(self._pinned or self._revision)
        self._files = {file: listed[file] for file in wanted_files(listed, self.location)}
        self._pinned = self._commit(listed, latest)
        return self._pinned

    def revisions(self) -> list[str] | None:
        """Return None: they are not listed."""

    def resolved(self) -> str:
        """Return `modelscope://owner/name@commit`."""
        pinned = self._pinned or self.revision()
        return f"modelscope://{self.name}@{pinned if COMMIT.fullmatch(pinned) else self._revision}"

    def sizes(self) -> dict[str, int]:
        """Return the bytes of the files that make up the model."""
        return {file: entry.size for file, entry in self._wanted().items()}

    def cached(self) -> Path | None:
        """Return the folder of a copy that was kept before, without a network, or None."""
        folder = self._copies.find(self._pinned or self._revision)
        if folder is not None:
            self._pinned = folder.name
        return folder

    def doubt(self, folder: Path) -> None:
        """Return None: a copy appears when all of it is there."""

    def fetch(self, progress: Progress | None = None) -> Path:
        """Download what is missing of the pinned revision; returns the folder it is kept in."""
        sizes, pinned = self.sizes(), self._pinned or self.revision()
        folder = self._copies.keep(pinned, sizes, self._read, self._check, progress)
        self._copies.note(self._revision, pinned)
        return folder

    def read(self, file: str, offset: int, length: int) -> bytes:
        """Return a range of a file of the pinned revision, by one request; short at its end."""
        with self._opened(self._address(file), (offset, offset + length)) as answer:
            if offset and answer.status != _PART:
                raise ModelSourceError(
                    f"model source {self.location}: {self.home} gives no parts of files; run "
                    f"`ronghe merge`, which downloads the model"
                )
            return bytes(answer.read(length))

    def copy_to(self, sink: FileSink, progress: Progress | None = None) -> None:
        """Copy the files, each checked against its SHA-256."""
        files = self._wanted()
        total, done = sum(entry.size for entry in files.values()), 0
        for file, entry in files.items():
            hasher = hashlib.sha256()
            with sink.open(file, entry.size) as writer:
                for piece in self._read(file, 0):
                    writer.write(piece)
                    hasher.update(piece)
                    done += len(piece)
                    if progress:
                        progress(done, total)
                self._compare(file, hasher.hexdigest())

    def _wanted(self) -> Mapping[str, _File]:
        if self._files is None:
            self.revision()
        return self._files or {}

    def _list(self, revision: str) -> tuple[dict[str, _File], dict[str, Any]]:
        """Every file of a revision, and what is said of the latest commit."""
        query = urlencode({"Revision": revision, "Recursive": "True"})
        with self._opened(f"{self.home}/api/v1/models/{self.name}/repo/files?{query}") as answer:
            text = answer.read(_LARGEST_LIST)
        try:
            document = json.loads(text)
            data = document["Data"] if document.get("Success", True) else None
            rows = data["Files"] if data else None
            listed = {
                str(row["Path"]): _File(
                    str(row.get("Revision") or ""), int(row["Size"]), str(row.get("Sha256") or "")
                )
                for row in rows or []
                if row.get("Type") != "tree"
            }
            latest = data.get("LatestCommitter") if data else None
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise ModelSourceError(
                f"model source {self.location}: {self.home} answered with no list of files; check "
                f"MODELSCOPE_ENDPOINT, and the proxy"
            ) from None
        if rows is None:  # so it says that there is no such model, or no such revision
            raise self._absent()
        return listed, latest if isinstance(latest, dict) else {}

    def _commit(self, listed: Mapping[str, _File], latest: Mapping[str, Any]) -> str:
        """The commit of the list: as asked, as said, or by its first characters that are said."""
        said = [self._revision, str(latest.get("Id") or ""), str(latest.get("Revision") or "")]
        short = str(latest.get("ShortId") or "")
        if len(short) >= 7:
            said += [each.revision for each in listed.values() if each.revision.startswith(short)]
        for each in said:
            if COMMIT.fullmatch(each):
                return each
        rows = [[file, entry.size, entry.sha256] for file, entry in sorted(listed.items())]
        return blake3(json.dumps(rows).encode()).hexdigest()

    def _address(self, file: str) -> str:
        entry = self._wanted()[file]
        exact = entry.revision if COMMIT.fullmatch(entry.revision) else self._revision
        query = urlencode({"Revision": exact, "FilePath": file}, quote_via=quote)
        return f"{self.home}/api/v1/models/{self.name}/repo?{query}"

    def _read(self, file: str, start: int) -> Iterator[memoryview]:
        """The file's bytes from `start`; an answer that breaks off is asked for again."""
        address, size, at, silent = self._address(file), self._wanted()[file].size, start, 0
        while at < size:
            came = at
            try:
                with self._opened(address, (at, size)) as answer:
                    skip = at if answer.status != _PART else 0
                    while skip:  # a server that always gives the whole
                        gone = len(answer.read(min(_PIECE, skip)))
                        skip = skip - gone if gone else 0
                    while at < size and (piece := answer.read(min(_PIECE, size - at))):
                        yield memoryview(piece)
                        at += len(piece)
            except (OSError, HTTPException, _NoAnswerError):
                if at == came and silent + 1 == _TRIES:
                    raise
            silent = silent + 1 if at == came else 0
            if silent == _TRIES:
                raise ModelSourceError(
                    f"model source {self.location}: {file} ended {size - at} bytes too early"
                )
            if silent:
                time.sleep(_PAUSE * 2 ** (silent - 1))

    def _check(self, file: str, copy: Path) -> None:
        with copy.open("rb") as opened:
            self._compare(file, hashlib.file_digest(opened, "sha256").hexdigest())

    def _compare(self, file: str, sha256: str) -> None:
        said = self._wanted()[file].sha256.lower()
        if said and said != sha256:
            raise ModelSourceError(
                f"model source {self.location}: {file} arrived with other bytes than are there; "
                f"check the network, and run again"
            )

    @contextlib.contextmanager
    def _opened(self, address: str, part: tuple[int, int] | None = None) -> Iterator[Any]:
        """An open answer, its errors as those of a model source.

        The token goes to ModelScope alone, not on to where it redirects downloads.
        """
        from urllib.request import Request, build_opener

        request = Request(address, headers={"User-Agent": "ronghe", "Accept-Encoding": "identity"})
        if part is not None:
            request.add_header("Range", f"bytes={part[0]}-{max(part[0], part[1] - 1)}")
        token = os.environ.get("MODELSCOPE_API_TOKEN")
        if token:
            request.add_unredirected_header("Authorization", f"Bearer {token}")
            request.add_unredirected_header("Cookie", f"m_session_id={token}")
        try:
            with build_opener().open(request, timeout=_ANSWER) as answer:
                yield answer
        except HTTPError as error:
            error.close()
            if error.code == _NOT_FOUND:
                raise self._absent() from None
            kind = _NoAnswerError if error.code >= _SERVER_ERROR else ModelSourceError
            raise kind(
                f"model source {self.location} cannot be read ({self.home} answered "
                f"{error.code}); a private or gated model takes MODELSCOPE_API_TOKEN"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise _NoAnswerError(
                f"model source {self.location} is not in the local cache ({self.kept_in}), and "
                f"ModelScope ({self.home}) cannot be reached ({type(error).__name__}); check the "
                f"network and the proxy, or download it elsewhere (`modelscope download --model "
                f"{self.name} --local_dir FOLDER`) and name the folder"
            ) from None

    def _absent(self) -> ResourceError:
        return MissingSourceError(
            f"model source {self.location} is not on ModelScope ({self.home}), or is private; "
            f"correct the name or the revision ({self._revision}), or set MODELSCOPE_API_TOKEN"
        )
