"""A bucket as one process has it open: names, requests with patience, and faults as our errors."""

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

from resources.places.s3.aws_chain import AwsSettings, read_aws_chain
from resources.places.s3.bodies import PARKED, Body, ParkedBodies, Watch
from resources.places.s3.client import (
    FAULTS,
    Patience,
    Timeouts,
    explain,
    is_missing,
    make_client,
    persist,
)

PATIENCE, TIMEOUTS = Patience(), Timeouts()
FIRST_PATIENCE, FIRST_TIMEOUTS = Patience(tries=7, seconds=15.0), Timeouts(connect=3.0, read=5.0)
"""Of the first contact, so that a wrong endpoint is said soon."""

GETS_AT_ONCE = 8
PARTS_AT_ONCE = 3
_OTHERS = 4  # requests of callers' own threads beside these

Done = TypeVar("Done")


@dataclass(frozen=True)
class Role:
    """What a bucket is for, in messages: its name, and what one must be allowed to do there."""

    name: str
    rights: str


ARTIFACT_STORE = Role("artifact store", "get, put, delete and list")
MODEL_SOURCE = Role("model source", "list and get")


class Bucket:
    """Objects below `prefix` of the bucket `name`; the first use makes contact.

    `patience` says how often, and how long, an operation is tried, `timeouts` what a single request
    may take.
    """

    def __init__(self, name: str, prefix: str, role: Role = ARTIFACT_STORE) -> None:
        self.name = name
        self.prefix = prefix
        self.role = role
        self.uri = f"s3://{name}/{prefix}" if prefix else f"s3://{name}"
        self.patience = PATIENCE
        self.timeouts = TIMEOUTS
        self._settings: AwsSettings | None = None
        self._connection: Connection | None = None
        self._process = 0  # the one that made the connection: a forked child makes its own
        self._lock = threading.Lock()

    def names(self, key: str) -> dict[str, str]:
        """Return what a request says to name an object."""
        return {"Bucket": self.name, "Key": f"{self.prefix}/{key}" if self.prefix else key}

    def connection(self) -> "Connection":
        """Return what this process has open; makes contact the first time.

        StoreError is raised when the endpoint, the bucket or the credentials are not right.
        """
        with self._lock:
            if self._connection is None or self._process != os.getpid():
                self._settings = settings = read_aws_chain()
                settings.need_credentials(self.role.name)
                self._make_contact(settings)
                self._connection = Connection(settings, self.timeouts)
                self._process = os.getpid()
            return self._connection

    def opened(self) -> "Connection | None":
        """Return what this process has open already; makes no contact."""
        return self._connection if self._process == os.getpid() else None

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and session token in use."""
        self.connection()
        return self._settings.secrets() if self._settings else ()

    def persist(self, doing: str, action: Callable[[bool], Done]) -> Done:
        """Do what may have to be tried again, and translate what it ends with."""
        self.connection()
        with self.translated(doing):
            return persist(action, self.patience)

    @contextlib.contextmanager
    def translated(self, doing: str, endpoint: str | None = None) -> Iterator[None]:
        """Turn what a request ends with into our errors; a missing object is FileNotFoundError.

        The client's own text is not quoted or chained: it repeats the request.
        """
        try:
            yield
        except FAULTS as error:
            if is_missing(error):
                raise FileNotFoundError(f"{self.uri} has no object for {doing}") from None
            where = f"{self.role.name} {self.uri}: {doing} failed"
            raise explain(where, self.name, self.role.rights, error, endpoint) from None

    def _make_contact(self, settings: AwsSettings) -> None:
        """List once with few tries, so that a wrong endpoint, bucket or key is said at once."""
        client = make_client(settings, FIRST_TIMEOUTS, 1)
        with self.translated("first contact", settings.endpoint):
            try:
                listing = {"Bucket": self.name, "Prefix": f"{self.prefix}/", "MaxKeys": 1}
                persist(lambda again: client.list_objects_v2(**listing), FIRST_PATIENCE)
            finally:
                client.close()


class Connection:
    """What one process has open to a bucket: a client, and threads that read and write.

    botocore signs a request for bytes and understands its answer; between the two it is sent here,
    because the body that botocore hands out can neither be cut from another thread nor give its
    connection back.
    """

    def __init__(self, settings: AwsSettings, timeouts: Timeouts) -> None:
        connections = GETS_AT_ONCE + PARTS_AT_ONCE + PARKED + _OTHERS
        self.client = make_client(settings, timeouts, connections)
        self.parked = ParkedBodies()
        self.gets = ThreadPoolExecutor(GETS_AT_ONCE, "s3-get")
        self.puts = ThreadPoolExecutor(PARTS_AT_ONCE, "s3-put")
        self.parts_at_once = threading.BoundedSemaphore(PARTS_AT_ONCE)
        self.asking = threading.Lock()  # while it is found out what parts shall carry
        self.checks_crc32: bool | None = None
        self._timeouts = timeouts
        self._watch = Watch()
        self._spare: deque[bytearray] = deque(maxlen=PARTS_AT_ONCE)
        self._answered = threading.local()
        verify: Any = settings.bundle or True
        self._session = URLLib3Session(
            verify=verify,
            proxies=get_environ_proxies(self.client.meta.endpoint_url),
            timeout=(timeouts.connect, timeouts.read),
            max_pool_connections=connections,
        )
        self.client.meta.events.register("before-send.s3.GetObject", self._send)

    def get(self, offset: int, most: int | None, **request: str) -> tuple[Body, dict[str, Any]]:
        """Ask for an object's bytes from `offset`, at most `most` of them, or all.

        Returns the body and what the answer says beside it.
        """
        answer = self.client.get_object(**request)
        nbytes, raw = int(answer["ContentLength"]), self._answered.raw
        most = nbytes if most is None else most
        return Body(raw, offset, nbytes, most, self._watch, self._timeouts), answer

    def buffer(self, nbytes: int) -> bytearray:
        """Return a buffer, one that was used before if it has the size."""
        with contextlib.suppress(IndexError):
            buffer = self._spare.pop()
            if len(buffer) == nbytes:
                return buffer
        return bytearray(nbytes)

    def take_back(self, buffer: bytearray) -> None:
        """Keep a buffer that nothing uses any more: fresh memory costs as much as a copy."""
        self._spare.append(buffer)

    def _send(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Send a request for bytes in botocore's place, and note this thread's answer."""
        answer = self._session.send(request)
        self._answered.raw = answer.raw
        return answer
