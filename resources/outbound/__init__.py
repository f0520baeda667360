"""What leaves the store: as an OCI layout, to the Hugging Face Hub, and events of lineage."""

from resources.outbound.files import OutgoingFile
from resources.outbound.hub_push import HubPush
from resources.outbound.lineage_events import (
    Dataset,
    LineageEndpoint,
    RunNote,
    endpoint_of_environment,
)
from resources.outbound.oci_layout import write_layout

__all__ = [
    "Dataset",
    "HubPush",
    "LineageEndpoint",
    "OutgoingFile",
    "RunNote",
    "endpoint_of_environment",
    "write_layout",
]
