"""Events of OpenLineage, sent to the endpoint that the standard variables name.

openlineage.io/spec/2-0-2/OpenLineage.json. A run event says that a run of a job started, completed
or failed, and which datasets went in and came out. Whoever does not answer costs a warning.

    OPENLINEAGE_URL        the endpoint, such as http://marquez:5000
    OPENLINEAGE_ENDPOINT   the path below it                            api/v1/lineage
    OPENLINEAGE_API_KEY    a bearer token
    OPENLINEAGE_NAMESPACE  the namespace of jobs                        ronghe
    OPENLINEAGE_DISABLED   true: nothing is sent
"""

import json
import os
import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NoReturn
from urllib.parse import urlsplit

SCHEMA = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"
PRODUCER = "https://pypi.org/project/ronghe"
ANSWER = 5.0
"""Seconds for one answer."""
MOST_WAITING = 1000
"""Events that wait for an endpoint; of more, the newest are not sent."""

State = Literal["START", "COMPLETE", "FAIL"]


@dataclass(frozen=True)
class Dataset:
    """A dataset of an event: a model or a checkpoint, by the store's address and a name."""

    namespace: str
    name: str
    digest: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as an event has it; the digest is its version."""
        facets = {}
        if self.digest is not None:
            schema = "https://openlineage.io/spec/facets/1-0-1/DatasetVersionDatasetFacet.json"
            facets["version"] = {
                "_producer": PRODUCER,
                "_schemaURL": f"{schema}#/$defs/DatasetVersionDatasetFacet",
                "datasetVersion": self.digest,
            }
        return {"namespace": self.namespace, "name": self.name, "facets": facets}


def run_event(
    state: State,
    at: str,
    run: str,
    namespace: str,
    job: str,
    inputs: Sequence[Dataset] = (),
    outputs: Sequence[Dataset] = (),
    error: str | None = None,
) -> dict[str, Any]:
    """Return a run event: `at` is a time of ISO 8601 with its zone, `run` a UUID."""
    facets: dict[str, Any] = {}
    if error is not None:
        schema = "https://openlineage.io/spec/facets/1-0-1/ErrorMessageRunFacet.json"
        facets["errorMessage"] = {
            "_producer": PRODUCER,
            "_schemaURL": f"{schema}#/$defs/ErrorMessageRunFacet",
            "message": error,
            "programmingLanguage": "python",
        }
    return {
        "eventType": state,
        "eventTime": at,
        "run": {"runId": run, "facets": facets},
        "job": {"namespace": namespace, "name": job, "facets": {}},
        "inputs": [each.to_json() for each in inputs],
        "outputs": [each.to_json() for each in outputs],
        "producer": PRODUCER,
        "schemaURL": SCHEMA,
    }
