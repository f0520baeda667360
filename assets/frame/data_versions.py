"""Data versions that say which artifact a partition is, for whoever compares them with the store.

Most are an artifact's digest as it is. A merged checkpoint's is the digest of what it was made
from, and behind a dot the beginning of its own.
"""

DATA_VERSION = "dagster/data_version"
"""Dagster's own tag of an event: what version of its data a partition has."""
_OF_INPUTS, _OF_ARTIFACT = 32, 31
"""Digits of both digests: Dagster has room for the 64 of one."""


def checkpoint_version(inputs: str, digest: str) -> str:
    """Return the data version of a checkpoint, of the digests of its inputs and of itself."""
    return f"{inputs[:_OF_INPUTS]}.{digest[:_OF_ARTIFACT]}"


def names_artifact(version: str | None, digest: str) -> bool:
    """Return whether a data version is the digest of an artifact, or a checkpoint's of it."""
    inputs, dot, own = (version or "").partition(".")
    return own == digest[:_OF_ARTIFACT] if dot else inputs == digest


def is_of_inputs_alone(version: str) -> bool:
    """Return whether a checkpoint's data version says no digest, as those of earlier releases."""
    return "." not in version
