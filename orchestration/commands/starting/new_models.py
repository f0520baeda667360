"""Models that are to stand in a catalog: looked at, named, and written as the catalog writes them.

A model is given as `SOURCE` or `NAME=SOURCE`. A source is a folder here, `owner/name[@revision]` on
the Hugging Face Hub, or a URI. A folder that is there wins over a name of the Hub.
"""

import os
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from merge_ops.checkpoints.files.bounded_yaml import DocumentError, load_documents
from merge_ops.checkpoints.files.plain_files import read_bounded
from merge_ops.errors import (
    Fault,
    FaultsError,
    MissingModelError,
    RongheError,
    UnreadableFileError,
    quoted,
)
from orchestration.catalogs.names import BANNED, alike, name_rule, secret_fault

if TYPE_CHECKING:
    from merge_ops.checkpoints.folders.folder_verdict import FolderVerdict
    from orchestration.commands.models.model_references import Place

_GENERIC = re.compile(
    r"(checkpoint|step|epoch|global_step)[-_]?\d+|final|best|latest|last|model|models|merged|output"
    r"|outputs|out|hf|adapter|lora|main|master|\d+",
    re.IGNORECASE,
)
"""Names of folders that say nothing of a model: the folder above is named with them."""
MOST_UP = 4
"""Folders up that a relative source may go; a path from the root reads better than more."""
_CARD, _MOST_CARD, _LONGEST_CARD = "README.md", 64 << 10, 4 << 20
"""A model card, the bytes of it that are looked at, and those of one that is looked at at all."""
_FRONT = re.compile(r"\A---\r?\n(.*?)\r?\n---\r?$", re.DOTALL | re.MULTILINE)


class NewModelError(FaultsError):
    """Models that cannot be put into a catalog, with every fault of each."""


@dataclass(frozen=True)
class NewModel:
    """A new model is what models.yaml will say of it; `base` is None for a base model.

    `facts` is what was found, for people, such as its size before a download.
    """

    name: str
    source: str
    base: str | None = None
    kind: str = "full"
    licence: str | None = None
    follow_links: bool = False
    facts: str = ""


@dataclass(frozen=True)
class Asked:
    """What a person typed for one model: `NAME=SOURCE`, or the source alone."""

    text: str
    name: str | None
    source: str


def asked(text: str) -> Asked:
    """Take `NAME=SOURCE` apart; what is there under the whole text is a source."""
    from orchestration.commands.models.model_references import is_there, local_path

    name, separator, source = text.partition("=")
    if separator and source and name and "/" not in name and not is_there(local_path(text)):
        return Asked(text, unicodedata.normalize("NFC", name), source)
    return Asked(text, None, text)


def look_at(
    wanted: Sequence[tuple[Asked, bool]],
    folder: Path,
    taken: Sequence[str] = (),
    look: bool = True,
    follow_links: bool = False,
) -> list[NewModel]:
    """Look at models and name them, each with whether it is an expert; `base` is set by the caller.

    `folder` is the catalog's, which relative sources start from; `taken` are names that are used.
    Headers are read here, lists of files far away, no weight anywhere; without `look` far models
    are written as they were typed. Raises NewModelError with the faults of all of them.
    """
    faults: list[Fault] = []
    found: list[NewModel] = []
    for each, is_expert in wanted:
        try:
            found.append(_look(each, is_expert, folder, look, follow_links))
        except RongheError as error:
            faults.append(Fault(f"'{each.text}'", str(error)))
    names = [model.name for model in found]
    near = alike(dict.fromkeys([*taken, *names]))
    for model in found:
        problem = _name_fault(model.name)
        if problem is None and model.name in taken:
            problem = f"would be called '{model.name}', as a model of the catalog is"
        if problem is None and names.count(model.name) > 1:
            problem = f"would be called '{model.name}', as another one is"
        if problem is None and model.name in near:
            problem = (
                f"would be called '{model.name}', and many disks take that for {near[model.name]}"
            )
        if problem is not None:
            told = f"{problem}; name it yourself: NAME={model.source}"
            faults.append(Fault(f"'{model.source}'", told))
    if faults:
        raise NewModelError("the catalog's models", list(dict.fromkeys(faults)))
    return found


def _look(each: Asked, is_expert: bool, folder: Path, look: bool, follow_links: bool) -> NewModel:
    from orchestration.commands.models.model_references import is_there, local_path, origin_of

    path = local_path(each.source)
    if secret_fault(each.source):
        raise MissingModelError(str(secret_fault(each.source)))
    if not is_there(path):
        return _far(each, is_expert, look)
    if (origin := origin_of(path)) is not None:  # a cache comes and goes, the Hub's name stays
        return _far(Asked(each.text, each.name, origin), is_expert, look)
    return _here(each, is_expert, path, folder, follow_links)


def _here(each: Asked, is_expert: bool, path: Path, folder: Path, follow_links: bool) -> NewModel:
    """A folder of this machine, told by its headers. Raises MissingModelError."""
    if not path.is_dir():
        problem = f"{path} is a file; a catalog takes folders, so put it into one, beside its"
        raise MissingModelError(f"{problem} config and tokenizer, and name that")
    verdict = _verdict(path, follow_links)
    _refuse(verdict, is_expert)
    kind = "lora" if verdict.kind == "adapter" else "full"
    name = each.name or name_of_folder(path)
    told = written_source(path, folder)
    return NewModel(name, told, None, kind, licence_of(path), follow_links, f"{verdict.kind}, here")


def _far(each: Asked, is_expert: bool, look: bool) -> NewModel:
    """A model of the Hub, ModelScope or a bucket, told by its copy here or its list of files."""
    _, separator, rest = each.source.partition("://")
    written = each.source if separator else f"hf://{each.source}"
    name = each.name or name_of_far(rest if separator else each.source)
    if not look:
        return NewModel(name, written, facts="not looked at")
    from orchestration.commands.models.model_references import resolve

    place = resolve(each.source)
    if place.path is not None:
        verdict = _verdict(place.path)
        _refuse(verdict, is_expert)
        kind = "lora" if verdict.kind == "adapter" else "full"
        licence = licence_of(place.path)
        return NewModel(name, written, None, kind, licence, facts="in the local cache")
    return _by_its_list(name, written, place, is_expert)


def _by_its_list(name: str, written: str, place: "Place", is_expert: bool) -> NewModel:
    from orchestration.sizes import size_text
    from resources.errors import ResourceError

    assert place.far is not None  # it is here or there
    try:
        sizes = place.far.sizes()
        card = place.far.read(_CARD, 0, _MOST_CARD) if _CARD in sizes else b""
    except ResourceError as error:
        raise MissingModelError(str(error)) from None
    adapter = "adapter_config.json" in sizes
    if adapter and not is_expert:
        raise MissingModelError("is an adapter, and a base model is none")
    facts = f"{size_text(sum(sizes.values()))} to download, from {place.far.home}"
    kind = "lora" if adapter else "full"
    return NewModel(name, written, None, kind, _licence_in(card), facts=facts)


def _verdict(path: Path, follow_links: bool = False) -> "FolderVerdict":
    from merge_ops.checkpoints import FolderSource
    from merge_ops.checkpoints.folders.folder_verdict import read_folder

    return read_folder(FolderSource(path, follow_links=follow_links)).verdict


def _refuse(verdict: "FolderVerdict", is_expert: bool) -> None:
    """Raise MissingModelError for what can be no model of a catalog."""
    if verdict.faults:
        raise MissingModelError("; ".join(verdict.faults))
    if verdict.kind == "adapter" and not is_expert:
        raise MissingModelError("is an adapter, and a base model is none")


def written_source(path: Path, folder: Path) -> str:
    """How models.yaml names a folder: from the catalog's folder where that is near, else whole."""
    whole = path.absolute()
    near = os.path.relpath(whole, folder.absolute())
    up = Path(near).parts.count("..")
    return near if up <= MOST_UP and up < len(folder.absolute().parts) - 1 else str(whole)


def name_of_folder(path: Path) -> str:
    """Name a model by its folder, and by the one above where that one says nothing by itself."""
    parts = [part for part in Path(os.path.abspath(path)).parts if part not in ("/", "")]
    name = parts[-1] if parts else "model"
    if _GENERIC.fullmatch(name) and len(parts) > 1:
        name = f"{parts[-2]}-{name}"
    return clean_name(name)


def name_of_far(address: str) -> str:
    """Name a model by the last part of its address, without the revision."""
    parts = [part for part in address.partition("@")[0].strip("/").split("/") if part]
    name = parts[-1] if parts else "model"
    if _GENERIC.fullmatch(name) and len(parts) > 1:
        name = f"{parts[-2]}-{name}"
    return clean_name(name)


def clean_name(text: str) -> str:
    """Return a text as a name of the catalog: composed, with `-` for what no name may hold."""
    composed = unicodedata.normalize("NFC", text)
    return re.sub(r"-{2,}", "-", BANNED.sub("-", composed)).strip("-")[:120] or "model"


def _name_fault(name: str) -> str | None:
    if not name or len(name) > 120 or BANNED.search(name):
        return f"would be called {quoted(name)}, and {name_rule()}"
    return None


def licence_of(folder: Path) -> str | None:
    """Return the licence that a model's card states in its head; None where it states none."""
    try:
        text = read_bounded(folder / _CARD, _LONGEST_CARD)
    except UnreadableFileError:
        return None
    return _licence_in(text[:_MOST_CARD])


def _licence_in(card: bytes) -> str | None:
    head = _FRONT.search(card.decode("utf-8", errors="replace"))
    if head is None:
        return None
    try:
        document = load_documents(head[1], any_base=True)[0]
    except DocumentError:
        return None
    licence = document.get("license") if isinstance(document, dict) else None
    if isinstance(licence, str) and licence == "other":
        licence = document.get("license_name") or licence
    return licence if isinstance(licence, str) and licence.isprintable() else None
