"""Where upstream models come from: folders, S3 buckets, the Hugging Face Hub, ModelScope.

A source has a revision, which changes when the model does, and is copied into an attempt of the
artifact store.
"""

import os
import re
from pathlib import Path
from urllib.parse import unquote

from resources.errors import UnknownSchemeError
from resources.upstream.far_model import FarModel
from resources.upstream.source import ModelSource, check_plain

ALLOWED_SCHEMES = (
    "a folder (absolute, or relative to the catalog), file://, s3://, hf:// and modelscope://"
)
FAR_SCHEMES = ("hf", "modelscope", "s3")


def open_model_source(
    uri: str, relative_to: Path, cache: Path | None = None, follow_links: bool = False
) -> ModelSource:
    """Open the place one upstream model comes from; nothing is read yet.

    `uri` is a folder, which may be relative to `relative_to`, `file:///folder`, `s3://bucket/key`,
    `hf://owner/name[@revision]` or `modelscope://owner/name[@revision]`. Hashes of local files are
    remembered in `cache`, or in ~/.cache/ronghe/revisions. `follow_links` is for a folder of one's
    own, whose links may lead out of it. UnknownSchemeError is raised for another scheme.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*", scheme):
        from resources.upstream.folder_source import FolderModel

        return FolderModel(relative_to / os.path.expanduser(uri), cache, follow_links=follow_links)
    if scheme == "file":
        from resources.upstream.folder_source import FolderModel

        check_plain(scheme, rest)
        if not rest.startswith("/"):
            raise UnknownSchemeError(f"model source {uri!r} is not absolute: write file:///folder")
        return FolderModel(Path(unquote(rest)), cache, follow_links=follow_links)
    return open_far_model(uri)


def open_far_model(uri: str) -> FarModel:
    """Open a model that is not in a folder; nothing is read yet.

    `uri` is `hf://…`, `modelscope://…` or `s3://…` as above, or a name of the Hub alone:
    `owner/name[@revision]`, or `gpt2`. UnknownSchemeError is raised for anything else.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        from resources.upstream.hub_source import HubModel

        return HubModel(uri, one_word=True)
    check_plain(scheme, rest)
    if scheme == "s3":
        from resources.upstream.s3_source import S3Model

        return S3Model(rest)
    if scheme == "hf":
        from resources.upstream.hub_source import HubModel

        return HubModel(rest)
    if scheme == "modelscope":
        from resources.upstream.modelscope_source import ModelScopeModel

        return ModelScopeModel(rest)
    raise UnknownSchemeError(
        f"model source {uri!r}: the scheme {scheme}:// is not supported; allowed are "
        f"{ALLOWED_SCHEMES}. Download the model to a folder and name that"
    )
