"""The standard AWS chain: credentials, region and endpoint from the environment, ~/.aws, or a role.

Read through botocore, as s3fs does, so that the store and upstream sources always agree.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.credentials import RefreshableCredentials

from resources.errors import StoreAccessError


@dataclass(frozen=True)
class AwsSettings:
    """What the chain says. The secret parts are in no repr."""

    endpoint: str | None
    region: str
    root_certificate: bytes | None = field(repr=False)
    credentials: Any = field(repr=False)

    def obstore_credentials(self) -> dict[str, Any]:
        """Return obstore's arguments: fixed keys, or a callback that renews those of a role.

        Raises:
            StoreAccessError: the chain has no credentials.
        """
        if self.credentials is None:
            raise StoreAccessError(
                "no AWS credentials were found for the artifact store; set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws, or run with a role that has them"
            )
        if isinstance(self.credentials, RefreshableCredentials):
            return {"credential_provider": self._current}
        fixed = self.credentials.get_frozen_credentials()
        keys = {"access_key_id": fixed.access_key, "secret_access_key": fixed.secret_key}
        return {**keys, "session_token": fixed.token} if fixed.token else keys

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and session token, to check that nothing written holds them."""
        if self.credentials is None:
            return ()
        frozen = self.credentials.get_frozen_credentials()
        return tuple(text for text in (frozen.secret_key, frozen.token) if text and len(text) >= 8)

    def _current(self) -> Any:
        frozen = self.credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + timedelta(minutes=5),
        }


def read_aws_chain() -> AwsSettings:
    """Read the chain now."""
    session = botocore.session.get_session()
    endpoint = ConfiguredEndpointProvider(
        full_config=session.full_config,
        scoped_config=session.get_scoped_config(),
        client_name="s3",
    ).provide()
    bundle = session.get_config_variable("ca_bundle")
    https = not endpoint or endpoint.startswith("https:")
    return AwsSettings(
        endpoint=endpoint or None,
        region=session.get_config_variable("region") or "us-east-1",
        root_certificate=Path(bundle).read_bytes() if bundle and https else None,
        credentials=session.get_credentials(),
    )
