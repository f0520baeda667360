"""Marks on contents: withdrawn, by whom and why, for all catalogs of a store.

    withdrawn/<digest>.json    every change of one mark, oldest first

A mark is changed as a ref is: read, appended to, and written back only if nobody else did meanwhile
(refs.py). So each change is one conditional write, and two people at once lose nothing. A mark that
cannot be read counts as a withdrawal, because nobody knows that it is none.
"""

import json
import random
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from resources.errors import DamagedArtifactError, LaterReleaseError, StoreFailureError
from resources.places import Place
from resources.store.clock import StoreClock
from resources.store.identity import ensure_identity
from resources.store.names import WITHDRAWN, mark_key, refuse_secrets
from resources.store.people import this_person
from resources.store.refs import read_at_once

_FORMAT = 1
_TRIES = 60
_UNREADABLE = "its mark cannot be read, so nobody knows that it is not withdrawn"


@dataclass(frozen=True)
class Mark:
    """One change of a mark: whether the content is withdrawn from then on, why, when, by whom.

    `called` is what it was called where the mark was made. With `warn_only` it is told and nothing
    is taken back for it.
    """

    digest: str
    withdrawn: bool
    because: str
    at: str
    by: str
    called: str = ""
    warn_only: bool = False


class Marks:
    """The marks of a store, on its place."""

    def __init__(self, place: Place, clock: StoreClock) -> None:
        self._place = place
        self._clock = clock

    def withdraw(
        self, digest: str, because: str, called: str = "", warn_only: bool = False
    ) -> bool:
        """Mark a content as withdrawn; return False where it was, for the same reason.

        Raises SecretFoundError for a reason that holds a secret, DamagedArtifactError where the
        mark that is there cannot be read, StoreFailureError where others change it all the time.
        """
        return self._write(digest, True, because, called, warn_only)

    def take_back(self, digest: str, because: str, called: str = "") -> bool:
        """Note that a content is withdrawn no more; return False where it was not.

        Raises as `withdraw` does.
        """
        return self._write(digest, False, because, called, False)

    def history(self, digest: str) -> list[Mark]:
        """Return every change of one mark, oldest first; none where it was never made.

        Raises DamagedArtifactError, and LaterReleaseError where a later release wrote it.
        """
        stored = self._place.read(mark_key(digest))
        return self._parsed(stored[0], digest) if stored is not None else []

    def withdrawn(self) -> dict[str, Mark]:
        """Return the marks of what is withdrawn now, by digest: a listing, small reads at once."""
        entries = self._place.children(WITHDRAWN)
        names = [entry.key.rsplit("/", 1)[-1] for entry in entries]
        digests = [name.removesuffix(".json") for name in names if name.endswith(".json")]
        marks = self._last(digests)
        return {mark.digest: mark for mark in marks if mark is not None and mark.withdrawn}

    def unreadable(self) -> list[tuple[str, DamagedArtifactError]]:
        """Return (key, fault) of each mark that cannot be read; such a one counts as a withdrawal.

        One of a later release is among them: a LaterReleaseError.
        """
        faults: list[tuple[str, DamagedArtifactError]] = []
        for key in sorted(entry.key for entry in self._place.children(WITHDRAWN)):
            if not key.endswith(".json"):
                continue
            try:
                self.history(key.rsplit("/", 1)[-1].removesuffix(".json"))
            except DamagedArtifactError as error:
                faults.append((key, error))
        return faults

    def _last(self, digests: Iterable[str]) -> list[Mark | None]:
        return read_at_once(self._place, self._current, list(digests))

    def _current(self, digest: str) -> Mark | None:
        try:
            history = self.history(digest)
        except DamagedArtifactError as error:
            return Mark(digest, True, f"{_UNREADABLE} ({error})", "", "")
        return history[-1] if history else None

    def _write(
        self, digest: str, withdrawn: bool, because: str, called: str, warn_only: bool
    ) -> bool:
        ensure_identity(self._place)
        key, change = mark_key(digest), uuid.uuid4().hex
        mark = Mark(digest, withdrawn, because, self._clock.now_text(), this_person(), called)
        line = {**asdict(mark), "warn_only": warn_only, "id": change}
        text = json.dumps(line, ensure_ascii=False)
        refuse_secrets(text, self._place.secrets(), f"the mark on {digest}")
        for tried in range(_TRIES):
            stored = self._place.read(key)
            history = self._lines(stored[0], digest) if stored else []
            if any(old["id"] == change for old in history):
                return True  # an answer got lost, and the write was tried again underneath
            last = history[-1] if history else None
            if last is None and not withdrawn:
                return False
            said = ("withdrawn", "because", "warn_only") if withdrawn else ("withdrawn",)
            if last is not None and all(last[name] == line[name] for name in said):
                return False
            document = {"format": _FORMAT, "digest": digest, "history": [*history, line]}
            data = json.dumps(document, ensure_ascii=False, indent=1).encode()
            if (
                self._place.replace(key, data, stored[1])
                if stored
                else self._place.create(key, data)
            ):
                return True
            time.sleep(random.uniform(0, min(0.5, 0.005 * 2 ** min(tried, 7))))
        raise StoreFailureError(
            f"the mark on {digest} in {self._place.uri} was changed by others {_TRIES} times while"
            " it was being changed here; run again, and see who marks it so often"
        )

    def _parsed(self, data: bytes, digest: str) -> list[Mark]:
        lines = self._lines(data, digest)
        return [
            Mark(**{name: value for name, value in each.items() if name != "id"}) for each in lines
        ]

    def _lines(self, data: bytes, digest: str) -> list[dict[str, Any]]:
        where = f"{self._place.uri}/{mark_key(digest)}"
        try:
            document = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise DamagedArtifactError(f"{where}: the mark is no JSON. {_WAY_OUT}") from error
        number = document.get("format") if isinstance(document, dict) else None
        if type(number) is int and number > _FORMAT:
            raise LaterReleaseError(
                f"{where}: the mark is not of format {_FORMAT} but of {number}, which a later"
                " release writes; use that release"
            )
        lines = document.get("history") if isinstance(document, dict) else None
        if number != _FORMAT or not isinstance(lines, list) or not lines:
            raise DamagedArtifactError(f"{where}: the mark is not of format {_FORMAT}. {_WAY_OUT}")
        for line in lines:
            if not _is_line(line, digest):
                raise DamagedArtifactError(
                    f"{where}: the mark is not as it was written. {_WAY_OUT}"
                )
        return lines


_WAY_OUT = "Remove that file, and withdraw the model again where it should stay withdrawn"


def _is_line(line: Any, digest: str) -> bool:
    texts, flags = ("digest", "because", "at", "by", "called", "id"), ("withdrawn", "warn_only")
    return (
        isinstance(line, dict)
        and set(line) == {*texts, *flags}
        and all(isinstance(line[name], str) for name in texts)
        and all(isinstance(line[name], bool) for name in flags)
        and line["digest"] == digest
    )
