"""Events of OpenLineage, sent by its own client to the endpoint that the standard variables name.

    OPENLINEAGE_URL        the endpoint, such as http://marquez:5000; without it nothing is sent
    OPENLINEAGE_API_KEY    a bearer token; OPENLINEAGE_ENDPOINT and the rest: the client's own
    OPENLINEAGE_NAMESPACE  the namespace of jobs                                    ronghe
    OPENLINEAGE_DISABLED   true: nothing is sent

A thread of its own sends them, so that nobody waits for the endpoint while work is done. Whoever
does not answer costs a warning, never a result.
"""

import os
import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from typing import Any, Literal

PRODUCER = "https://pypi.org/project/ronghe"
LAST_WAIT = 5.0
"""Seconds that the end of a work waits for events that are still on their way."""
MOST_WAITING = 1000
"""Events that wait for an endpoint; of more, the newest are not sent."""

State = Literal["START", "COMPLETE", "FAIL"]


@dataclass(frozen=True)
class Dataset:
    """A dataset of an event: a model or a checkpoint by a store's address, its name and digest."""

    namespace: str
    name: str
    digest: str | None = None


@dataclass(frozen=True)
class RunNote:
    """What an event says: a run of a job started, was completed or failed, from and into what.

    `run` is a UUID, `at` a time of ISO 8601 with its zone.
    """

    state: State
    run: str
    job: str
    inputs: Sequence[Dataset] = ()
    outputs: Sequence[Dataset] = ()
    error: str | None = None
    at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))


class LineageEndpoint:
    """The endpoint of the environment: `send` returns at once, `wait` waits a little, and once.

    One that was late or refused is waited for no more: a black hole costs a process LAST_WAIT.
    """

    def __init__(self) -> None:
        self._waiting: queue.Queue[RunNote] = queue.Queue(MOST_WAITING)
        self._over = threading.Condition()
        self._open, self._lost, self._late = 0, 0, False
        self._problem: str | None = None
        threading.Thread(target=self._work, name="lineage", daemon=True).start()

    def send(self, note: RunNote) -> None:
        """Send an event in the background; where too many wait already, count it as lost."""
        with self._over:
            self._open += 1
        try:
            self._waiting.put_nowait(note)
        except queue.Full:
            with self._over:
                self._open, self._lost = self._open - 1, self._lost + 1

    def wait(self, seconds: float = LAST_WAIT) -> str | None:
        """Wait for what is on its way, no longer; return a warning where not all was taken.

        A warning is told once.
        """
        with self._over:
            if not self._late:
                self._late = not self._over.wait_for(lambda: self._open == 0, seconds)
                if self._late:
                    self._problem = self._problem or "it does not answer in time"
            told, self._problem = self._problem, None
            lost, self._lost = self._lost, 0
        if told is None and not lost:
            return None
        many = f"; {lost} were not sent" if lost else ""
        return f"not every event of OpenLineage was taken by its endpoint ({told or 'late'}{many})"

    def _work(self) -> None:
        while True:
            note, problem = self._waiting.get(), None
            try:
                self._client.emit(_event(note))
            except ModuleNotFoundError as error:
                problem = f"{error.name} is not installed: pip install 'ronghe[lineage]'"
            except Exception as error:  # the client's transport raises every kind; no text of it,
                problem = type(error).__name__  # which may repeat the address
            with self._over:
                self._open -= 1
                self._problem = self._problem or problem
                self._over.notify_all()

    @cached_property
    def _client(self) -> Any:
        from openlineage.client import OpenLineageClient

        return OpenLineageClient()


@cache
def endpoint_of_environment() -> LineageEndpoint | None:
    """Return the endpoint that the standard variables name; None where they name none.

    A process has one.
    """
    disabled = os.environ.get("OPENLINEAGE_DISABLED", "").strip().lower() == "true"
    return LineageEndpoint() if os.environ.get("OPENLINEAGE_URL") and not disabled else None


def _event(note: RunNote) -> Any:
    """The event as OpenLineage's client knows it."""
    from openlineage.client import event_v2 as known
    from openlineage.client.facet_v2 import dataset_version_dataset, error_message_run

    namespace = os.environ.get("OPENLINEAGE_NAMESPACE") or "ronghe"

    def facets(dataset: Dataset) -> dict[str, Any]:
        if dataset.digest is None:
            return {}
        facet = dataset_version_dataset.DatasetVersionDatasetFacet(dataset.digest)
        return {"version": facet}

    of_run: dict[str, Any] = {}
    if note.error is not None:
        of_run["errorMessage"] = error_message_run.ErrorMessageRunFacet(note.error, "python")
    return known.RunEvent(
        eventTime=note.at,
        producer=PRODUCER,
        run=known.Run(note.run, of_run),
        job=known.Job(namespace, note.job, {}),
        eventType=known.RunState[note.state],
        inputs=[known.InputDataset(d.namespace, d.name, facets=facets(d)) for d in note.inputs],
        outputs=[known.OutputDataset(d.namespace, d.name, facets=facets(d)) for d in note.outputs],
    )
