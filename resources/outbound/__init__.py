"""What leaves the store: as an OCI layout, to the Hugging Face Hub, and events of lineage."""

from resources.outbound.files import OutgoingFile
from resources.outbound.hub_push import HubPush
from resources.outbound.lineage_events import LineageEndpoint
from resources.outbound.oci_layout import write_layout

__all__ = ["HubPush", "LineageEndpoint", "OutgoingFile", "write_layout"]
