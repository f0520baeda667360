"""Which place a URI names."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from resources.errors import StoreAddressError
from resources.places.place import Place


def open_place(uri: str) -> Place:
    """Open `file:///absolute/folder` or `s3://bucket/prefix`; no contact is made yet.

    StoreAddressError is raised where the URI is neither.
    """
    allowed = "allowed are file:///absolute/folder and s3://bucket/prefix"
    if uri.startswith("file://"):
        path = Path(unquote(uri.removeprefix("file://")))
        if not path.is_absolute():
            raise StoreAddressError(f"artifact store {uri!r} is not absolute; {allowed}")
        from resources.places.local import LocalPlace

        return LocalPlace(path)
    if uri.startswith("s3://"):
        parts = urlsplit(uri)
        if "@" in parts.netloc or parts.query or parts.fragment:
            raise StoreAddressError(
                "the s3:// URI of the artifact store holds more than a bucket and a prefix; "
                "write s3://bucket/prefix and leave credentials to the environment or ~/.aws"
            )
        prefix = parts.path.strip("/")
        if not parts.netloc or any(part in ("", ".", "..") for part in prefix.split("/") if prefix):
            raise StoreAddressError(f"artifact store {uri!r} names no bucket; {allowed}")
        from resources.places.s3.place import S3Place

        return S3Place(parts.netloc, prefix)
    scheme = uri.split("://", 1)[0] + "://" if "://" in uri else "no scheme"
    raise StoreAddressError(f"an artifact store with {scheme} is not supported; {allowed}")
