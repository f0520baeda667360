"""The webhook of the environment: told of promotions, rollbacks and refusals."""

from collections.abc import Mapping
from typing import Any

from assets.work.records.announcing import Webhook
from merge_ops.errors import SettingsError
from orchestration.settings import webhook_address


def announce(event: Mapping[str, Any]) -> str | None:
    """Send an event to the environment's webhook; return a warning where it was not taken.

    Nothing is sent, and None returned, where no webhook is set.
    """
    try:
        address = webhook_address()
    except SettingsError as error:
        return f"no webhook was told of the {event.get('event')}: {error}"
    return Webhook(*address).send(event) if address is not None else None
