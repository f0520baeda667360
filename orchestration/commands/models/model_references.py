"""What a recipe means by a model: a folder or file here, or a model that is somewhere else.

What is here wins, as it does in transformers. Then a URI is taken as one, and what looks like
`owner/name[@revision]` as a model of the Hugging Face Hub. Copies in the local caches come before
any network.
"""

import importlib.util
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from merge_ops.errors import Caution, MissingModelError
from orchestration.commands.models.missing_models import way_out

if TYPE_CHECKING:  # nothing of a network is imported where all models are here
    from resources.upstream import FarModel

_HUB_NAME = re.compile(r"(?=.{1,250}$)[A-Za-z0-9]([\w.-]*/[A-Za-z0-9])?[\w.-]*(@[\w./-]+)?")
_FILES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".json", ".yaml", ".yml")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)
_PAGE = re.compile(
    r"https?://(?:www\.)?(?P<host>huggingface\.co|hf\.co|hf-mirror\.com|modelscope\.cn)"
    r"(?:/models)?/(?P<name>[\w.-]+/[\w.-]+)"
)
_SNAPSHOT = re.compile(r"models--(?P<name>[\w.-]+)/snapshots/(?P<commit>[0-9a-f]{40})")


@dataclass(frozen=True)
class Place:
    """Where a model is: in `path` here, or far away, or both: a copy in a cache.

    `origin` is the URI that names it exactly, for others: `hf://owner/name@commit`. `follow_links`
    says that links may lead out of its folder.
    """

    path: Path | None
    far: "FarModel | None" = None
    origin: str | None = None
    cautions: tuple[Caution, ...] = ()
    follow_links: bool = False


def local_path(reference: str) -> Path:
    """The folder or file of a reference, with `~`, $VARIABLES and `file://` as their values.

    What is there under the name as it is written is that.
    """
    written = Path(reference)
    if is_there(written):
        return written
    if reference.startswith("file://"):
        return Path(unquote(reference.removeprefix("file://"), errors="surrogateescape"))
    return Path(os.path.expanduser(os.path.expandvars(reference)))


def is_there(path: Path) -> bool:
    """Whether something has this name; one too long for a name is not there.

    What this user may not look at counts as there: it is refused where it is opened, and not taken
    for the name of a model of the Hub's.
    """
    try:
        return path.exists()
    except PermissionError:
        return True
    except (OSError, ValueError):  # a zero byte is in no name
        return False


def resolve(reference: str) -> Place:
    """Find the place of one model; a far one is pinned to its revision, and not downloaded.

    Raises MissingModelError, whose text says where was looked, and how to go on.
    """
    path = local_path(reference)
    if is_there(path):
        if not os.access(path, os.F_OK) and not os.path.lexists(path):
            raise MissingModelError(
                f"{path.absolute()} may not be looked at: this user may not enter a folder above it"
            )
        return Place(path, origin=origin_of(path))
    from resources.errors import ResourceError

    far = _far_model(reference, path)
    if far is None:
        raise MissingModelError(f"there is no folder {path.absolute()}{way_out(reference, path)}")
    named = _SCHEME.fullmatch(reference) is None
    try:
        folder = far.cached()
        if folder is None:
            _need_client(far)
            far.revision()
        return Place(folder, far, far.resolved(), _completed(reference, far, folder))
    except (ResourceError, _NoClientError) as error:
        here = f"there is no folder {path.absolute()}{way_out(reference, path)}" if named else ""
        raise MissingModelError(f"{here}, and {error}" if here else str(error)) from None


def _completed(reference: str, far: "FarModel", folder: Path | None) -> tuple[Caution, ...]:
    """Complete a cached copy that may lack its tokenizer; a caution where nobody can be asked."""
    from resources.errors import ResourceError

    doubt = far.doubt(folder) if folder is not None else None
    if doubt is None:
        return ()
    try:
        _need_client(far)
        far.fetch()
    except (ResourceError, _NoClientError):
        problem, advice = doubt
        return (Caution(f"model '{reference}'", problem, advice),)
    return ()


def _far_model(reference: str, path: Path) -> "FarModel | None":
    """The far model that a reference may name, unopened; None where it can only be a path."""
    from resources.errors import UnknownSchemeError
    from resources.upstream import FAR_SCHEMES, open_far_model

    scheme = _SCHEME.fullmatch(reference)
    if scheme is not None and scheme[1].lower() == "file":
        return None
    page = _PAGE.match(reference)
    if page is not None:
        prefix = "modelscope://" if page["host"] == "modelscope.cn" else ""
        raise MissingModelError(f"that is a page on the web; write {prefix}{page['name']}")
    if scheme is None and not _HUB_NAME.fullmatch(reference):
        return None
    if scheme is None and (path.suffix.lower() in _FILES or "@" in reference):
        name, at, _ = reference.partition("@")
        if not at:
            return None
        if is_there(local_path(name)):
            raise MissingModelError(
                f"{local_path(name).absolute()} is a folder here, and folders have no revisions;"
                f" write '{name}' for it, or 'hf://{reference}' for the Hub's"
            )
    if scheme is not None and scheme[1].lower() not in FAR_SCHEMES:
        allowed = ", ".join(f"{each}://" for each in ("file", *FAR_SCHEMES))
        raise MissingModelError(
            f"the scheme {scheme[1]}:// is none of a model; write a folder, owner/name, or one of"
            f" {allowed}"
        )
    try:
        return open_far_model(reference)
    except UnknownSchemeError as error:
        raise MissingModelError(str(error)) from None


class _NoClientError(Exception):
    """What a download needs is not installed."""


def _need_client(far: "FarModel") -> None:
    """Say now where the client of the Hub is not installed. Raises _NoClientError."""
    if not far.needs or importlib.util.find_spec(far.needs) is not None:
        return
    from orchestration.commands.extras import extra_of

    raise _NoClientError(
        f"no whole copy of {far.location} is in the local cache ({far.kept_in}); to download it,"
        f" run: pip install 'ronghe[{extra_of(far.needs)}]'"
    )


def origin_of(path: Path) -> str | None:
    """The Hub's name of a folder that is a snapshot of the Hub's cache."""
    snapshot = _SNAPSHOT.fullmatch("/".join(path.absolute().parts[-3:]))
    if snapshot is None:
        return None
    return f"hf://{snapshot['name'].replace('--', '/')}@{snapshot['commit']}"
