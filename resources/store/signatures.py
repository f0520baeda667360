"""Signatures of contents, beside the artifacts and for all catalogs: no part of any digest.

signatures/<digest>/<key>.json    a Sigstore bundle; <key>: the SHA-256 of the public key's PEM
"""

import re

from resources.errors import StoreAddressError, StoreFailureError
from resources.places import Place
from resources.store.identity import ensure_identity
from resources.store.names import signature_folder

_KEY = re.compile(r"[0-9a-f]{64}")
_TRIES = 20


class Signatures:
    """The signatures of a store, on its place. What is in one is the signer's business."""

    def __init__(self, place: Place) -> None:
        self._place = place

    def put(self, digest: str, key: str, bundle: bytes) -> None:
        """Keep a signature of a content by a key, in place of an earlier one by the same key.

        Raises StoreFailureError where others write the same one all the time.
        """
        ensure_identity(self._place)
        where = self._at(digest, key)
        for _ in range(_TRIES):
            stored = self._place.read(where)
            if stored is None and self._place.create(where, bundle):
                return
            if stored is not None and self._place.replace(where, bundle, stored[1]):
                return
        raise StoreFailureError(
            f"{self._place.uri}/{where} was changed by others {_TRIES} times while it was being"
            " written here; run again, and see who signs it so often"
        )

    def get(self, digest: str, key: str) -> bytes | None:
        """Return the signature of a content by a key; None where there is none."""
        stored = self._place.read(self._at(digest, key))
        return stored[0] if stored is not None else None

    def keys(self, digest: str) -> list[str]:
        """Return which keys have signed a content, sorted."""
        entries = self._place.children(signature_folder(digest))
        names = [entry.key.rsplit("/", 1)[-1].removesuffix(".json") for entry in entries]
        return sorted(name for name in names if _KEY.fullmatch(name))

    def _at(self, digest: str, key: str) -> str:
        if not _KEY.fullmatch(key):
            raise StoreAddressError(f"{key!r} is no SHA-256 of a public key")
        return f"{signature_folder(digest)}/{key}.json"
