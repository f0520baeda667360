"""The standard AWS chain: credentials, region and endpoint from the environment, ~/.aws, or a role.

Read through botocore, for the store and for upstream models alike.
"""

import functools
import os
from dataclasses import dataclass, field
from typing import Any

import botocore.session
from botocore.configprovider import ConfiguredEndpointProvider
from botocore.loaders import create_loader

from resources.errors import StoreAccessError


@dataclass(frozen=True)
class AwsSettings:
    """What the chain says. The secret parts are in no repr.

    `bundle` is the file of certificates to trust, None for the default; `addressing_style` is what
    the profile says of it, if anything.
    """

    endpoint: str | None
    region: str
    bundle: str | None
    addressing_style: str | None
    session: Any = field(repr=False)
    credentials: Any = field(repr=False)

    def need_credentials(self, role: str) -> None:
        """Raise StoreAccessError, which names the `role` they are for, when there are none."""
        if self.credentials is None:
            raise StoreAccessError(
                f"no AWS credentials were found for the {role}; set AWS_ACCESS_KEY_ID and "
                f"AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws, or run with a role that has them"
            )

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and session token, to check that nothing written holds them."""
        if self.credentials is None:
            return ()
        frozen = self.credentials.get_frozen_credentials()
        return tuple(text for text in (frozen.secret_key, frozen.token) if text and len(text) >= 8)


def read_aws_chain() -> AwsSettings:
    """Read the chain now. Credentials of a role are renewed by the session when they expire."""
    session = botocore.session.get_session()
    described = _description_of_aws(session.get_config_variable("data_path"))
    session.register_component("data_loader", described)
    profile = session.get_scoped_config()
    endpoint = ConfiguredEndpointProvider(
        full_config=session.full_config, scoped_config=profile, client_name="s3"
    ).provide()
    section = profile.get("s3")
    return AwsSettings(
        endpoint=endpoint or None,
        region=session.get_config_variable("region") or "us-east-1",
        bundle=session.get_config_variable("ca_bundle")
        or os.environ.get("REQUESTS_CA_BUNDLE")  # as botocore's own requests do
        or None,
        addressing_style=section.get("addressing_style") if isinstance(section, dict) else None,
        session=session,
        credentials=session.get_credentials(),
    )


@functools.lru_cache(maxsize=1)
def _description_of_aws(data_path: str | None) -> Any:
    """What botocore knows of S3 and its endpoints: megabytes of JSON, read once in a process.

    Each session would read it anew, a tenth of a second for every bucket that is opened.
    """
    return create_loader(data_path)
