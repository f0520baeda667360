"""A benchmark's definition with the data it points to: items read, pinned files found or awaited.

Data of a shipped suite lies in the reader's `data_dir`, or on a shelf of files fetched from a
pinned commit. What is on neither is awaited (`waits_for`): a catalog loads without a network, and
the digest of the suite is the same before and after, because the bytes are named by SHA-256.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from blake3 import blake3

from eval_ops.errors import ItemsError
from eval_ops.suites.reading.definitions import (
    DEFAULT_NEW_TOKENS,
    NEW_TOKENS_FOR_LETTERS,
    BenchmarkDefinition,
    Source,
)
from eval_ops.suites.reading.item_forms import ItemForm
from eval_ops.suites.reading.items import FileReader, Item, divide, read_items
from eval_ops.suites.reading.reference_answers import (
    OWN_SYSTEM,
    OWN_TEMPLATE,
    read_judge_prompts,
    read_references,
)

DATA_FORMS = (".csv", ".json", ".jsonl", ".parquet")
JudgePrompt = tuple[str, str, str]
"""(name, system prompt, template over question, answer and reference)."""


class PinnedFile(NamedTuple):
    """A file of a commit of a GitHub repository, with the SHA-256 of its bytes."""

    repository: str
    commit: str
    path: str
    sha256: str

    @property
    def told(self) -> str:
        """Return the file as scores name it."""
        return f"{self.repository}@{self.commit[:12]} {self.path} sha256:{self.sha256[:16]}"


class Shelf(Protocol):
    """A shelf holds pinned files that were fetched, and knows models of this machine by digest."""

    def find(self, file: PinnedFile) -> Path | None:
        """Return the file on this machine, whose bytes are right, or None."""
        ...

    def model_digest(self, folder: Path) -> str:
        """Return the digest of a model's folder."""
        ...


@dataclass(frozen=True)
class DataPlace:
    """Where a benchmark's files lie: `folder`, unless a source is fetched to a shelf."""

    folder: Path
    reader: FileReader
    source: Source | None = None
    shelf: Shelf | None = None

    @property
    def fetched(self) -> bool:
        """Return whether files come from the source, for want of a folder of the reader's own."""
        return self.source is not None and self.shelf is not None

    def pinned(self, file: str, sha256: Mapping[str, str]) -> PinnedFile | None:
        """Return what a file of a GitHub source is, None for files of one's own and of the Hub."""
        if self.source is None or self.source.github is None or file not in sha256:
            return None
        path = f"{self.source.path}/{self.source.files.get(file, file)}".lstrip("/")
        return PinnedFile(self.source.github, self.source.commit, path, sha256[file])


def resolve(
    entry: BenchmarkDefinition,
    place: DataPlace,
    limit: int | None,
    seed: int,
    most_new: int | None = None,
) -> dict[str, Any]:
    """Return the fields of a benchmark. Raises ItemsError.

    `limit` and `most_new`, the most tokens that a model writes to an answer, are the suite's.
    """
    fields: dict[str, Any] = {
        "name": entry.name,
        "title": entry.title or entry.name,
        "metric": entry.value,
        "limit": entry.limit or limit,
        "chat_template": entry.chat_template,
        "judge_prompts": (),
    }
    found = _own(entry, place, limit, seed) if entry.items else _built_in(entry, place)
    if most_new and (entry.task or found["max_new_tokens"]):
        found["max_new_tokens"] = min(most_new, found.get("max_new_tokens") or most_new)
    return {**fields, **found}


def _built_in(entry: BenchmarkDefinition, place: DataPlace) -> dict[str, Any]:
    names = dict(sorted((entry.data_files or {}).items()))
    fields: dict[str, Any] = {
        "task": entry.task,
        "num_fewshot": entry.num_fewshot,
        "validation_share": entry.validation_share,
    }
    if place.fetched and place.source is not None and place.source.hub is not None:
        commit = place.source.commit
        return {**fields, "revision": commit, "version": f"{place.source.hub}@{commit[:12]}"}
    for name in names.values():
        if Path(name).suffix not in DATA_FORMS:
            raise ItemsError(str(place.folder / name), [f"must end in {', '.join(DATA_FORMS)}"])
    found = {split: _find(name, entry, place) for split, name in names.items()}
    waits = tuple(each for each in found.values() if isinstance(each, PinnedFile))
    files = {split: each for split, each in found.items() if isinstance(each, Path)}
    pinned = [place.pinned(name, entry.sha256) for name in names.values()]
    if pinned and all(pinned):
        version = "; ".join(each.told for each in pinned if each is not None)
    else:
        version = _digest_files(files, place.reader)
    if waits:
        return {**fields, "version": version, "waits_for": waits}
    return {**fields, "data_files": tuple(files.items()), "version": version}


def _own(
    entry: BenchmarkDefinition, place: DataPlace, limit: int | None, seed: int
) -> dict[str, Any]:
    generated = entry.kind == "generation" or entry.several
    tokens = NEW_TOKENS_FOR_LETTERS if entry.several else DEFAULT_NEW_TOKENS
    settings = {
        key: value
        for key in ("pattern", "ignore_case", "ignore_punctuation")
        if (value := getattr(entry, key))
    }
    fields: dict[str, Any] = {
        "delimiter": entry.delimiter,
        "kind": entry.kind,
        "letters": entry.asked == "letters",
        "several": entry.several,
        "max_new_tokens": (entry.max_new_tokens or tokens) if generated else 0,
        "stop": tuple(entry.stop),
        "settings": settings,
    }
    names = [str(entry.items), entry.references, entry.judge_prompts]
    found = {name: _find(name, entry, place) for name in names if name}
    if entry.metric == "judge":
        fields["settings"] = {"prompts": _prompts_digest(entry, place, found)}
    waits = tuple(each for each in found.values() if isinstance(each, PinnedFile))
    pinned = [place.pinned(name, entry.sha256) for name in found]
    told = [each.told for each in pinned if each is not None]
    if waits:
        return {**fields, "version": "; ".join(told), "waits_for": waits}
    file = read_items(_path(found[str(entry.items)]), place.reader, _form(entry))
    items = file.items
    if "validation_share" in entry.model_fields_set:
        items = divide(items, entry.validation_share, seed, entry.name)
    if entry.references:
        items = read_references(_path(found[entry.references]), place.reader, items)
    if entry.judge_prompts:
        prompts = read_judge_prompts(_path(found[entry.judge_prompts]), place.reader)
        fields["judge_prompts"] = prompts
    if len(told) < len(found):
        paths = [_path(each) for each in found.values()]
        told = [file.digest, *(_digest_of(path, place) for path in paths[1:])]
    kept = _first_of_each_split(items, entry.limit or limit)
    return {**fields, "items": kept, "version": "; ".join(told)}


def _prompts_digest(
    entry: BenchmarkDefinition, place: DataPlace, found: Mapping[str, Path | PinnedFile]
) -> str:
    """The digest of what a judge is asked: of the prompts' file, or of our own prompt."""
    if entry.judge_prompts is None:
        return blake3(f"{OWN_SYSTEM}\0{OWN_TEMPLATE}".encode()).hexdigest()[:12]
    pinned = place.pinned(entry.judge_prompts, entry.sha256)
    return (pinned.sha256 if pinned else _digest_of(_path(found[entry.judge_prompts]), place))[:12]


def _form(entry: BenchmarkDefinition) -> ItemForm:
    return ItemForm(
        kind=entry.kind,
        prompt=entry.prompt,
        columns=dict(entry.columns),
        letters=entry.asked == "letters" or entry.several,
        several=entry.several,
        needs_answers=entry.metric not in ("judge", "code"),
        numbers=entry.metric == "number",
        splits="validation_share" not in entry.model_fields_set,
        where=dict(entry.where),
        follow_up=entry.turns or "",
        tests=entry.tests or "",
        passage=entry.passage or "",
    )


def _find(name: str, entry: BenchmarkDefinition, place: DataPlace) -> Path | PinnedFile:
    """The path of a file, or what it is where it has not been fetched yet. Raises ItemsError."""
    pinned = place.pinned(name, entry.sha256)
    if place.shelf is not None and pinned is not None:
        return place.shelf.find(pinned) or pinned
    path = place.folder / name
    if pinned is not None:
        _check_bytes(path, pinned, place.reader)
    return path


def _path(found: Path | PinnedFile) -> Path:
    assert isinstance(found, Path)
    return found


def _check_bytes(path: Path, pinned: PinnedFile, reader: FileReader) -> None:
    """Raise ItemsError where a file of `data_dir` is missing, or has other bytes than it should."""
    try:
        given = hashlib.sha256(reader.items(path)).hexdigest()
    except FileNotFoundError:
        told = (
            f"is not there, in the suite's data_dir; it is {pinned.path} of"
            f" github.com/{pinned.repository} at commit {pinned.commit}. Leave data_dir out to have"
            " it fetched"
        )
        raise ItemsError(str(path), [told]) from None
    except OSError as error:
        raise ItemsError(str(path), [str(error)]) from error
    if given != pinned.sha256:
        told = (
            f"has the SHA-256 {given[:16]}…, not {pinned.sha256[:16]}… of {pinned.path} at commit"
            f" {pinned.commit[:12]} of github.com/{pinned.repository}; scores on other data have"
            " another name: write a suite of your own with `items`, or correct the file"
        )
        raise ItemsError(str(path), [told])


def _digest_of(path: Path, place: DataPlace) -> str:
    try:
        return place.reader.digest(path)
    except OSError as error:
        raise ItemsError(str(path), [str(error)]) from error


def _first_of_each_split(items: Sequence[Item], limit: int | None) -> tuple[Item, ...]:
    if limit is None:
        return tuple(items)
    taken: dict[str, int] = {}
    kept: list[Item] = []
    for item in items:
        taken[item.split] = taken.get(item.split, 0) + 1
        if taken[item.split] <= limit:
            kept.append(item)
    return tuple(kept)


def _digest_files(files: Mapping[str, Path], reader: FileReader) -> str:
    if not files:
        return ""
    total = blake3()
    for split, path in files.items():
        try:
            total.update(f"{split}\0{reader.digest(path)}\0".encode())
        except OSError as error:
            raise ItemsError(str(path), [str(error)]) from error
    return total.hexdigest()
