"""Where upstream models come from: local folders, S3 buckets, the Hugging Face Hub.

A source has a revision, which changes when the model does, and is copied into an attempt of the
artifact store.
"""

import re
from pathlib import Path
from urllib.parse import unquote

from resources.errors import UnknownSchemeError
from resources.upstream.source import ModelSource

ALLOWED_SCHEMES = "a folder (absolute, or relative to the catalog), file://, s3:// and hf://"


def open_model_source(uri: str, relative_to: Path, cache: Path | None = None) -> ModelSource:
    """Open the place one upstream model comes from; nothing is read yet.

    `uri` is a folder, which may be relative to `relative_to`, `file:///folder`, `s3://bucket/prefix`
    or `hf://owner/name[@revision]`. Hashes of local files are remembered in `cache`, or in
    ~/.cache/ronghe/revisions. UnknownSchemeError is raised for another scheme.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        from resources.upstream.folder_source import FolderModel

        return FolderModel(relative_to / Path(uri).expanduser(), cache)
    if "@" in rest.split("/")[0] or (scheme != "hf" and re.search(r"[?#]", rest)):
        raise UnknownSchemeError(
            f"a {scheme}:// model source holds more than a path (a user, or a query); credentials "
            f"come from the environment or ~/.aws"
        )
    if scheme == "file":
        from resources.upstream.folder_source import FolderModel

        if not rest.startswith("/"):
            raise UnknownSchemeError(f"model source {uri!r} is not absolute: write file:///folder")
        return FolderModel(Path(unquote(rest)), cache)
    if scheme == "s3":
        from resources.upstream.s3_source import S3Model

        return S3Model(rest)
    if scheme == "hf":
        from resources.upstream.hub_source import HubModel

        return HubModel(rest)
    raise UnknownSchemeError(
        f"model source {uri!r}: the scheme {scheme}:// is not supported; allowed are "
        f"{ALLOWED_SCHEMES}. Download the model to a folder and name that"
    )
