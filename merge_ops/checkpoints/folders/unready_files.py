"""Files that are not what they are called: links to nothing, git-lfs pointers, half downloads."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from merge_ops.checkpoints.files.byte_sources import ByteSource, FolderSource, read_file
from merge_ops.checkpoints.files.file_names import UNFINISHED, WEIGHTS, top_level

POINTER = b"version https://git-lfs"
MAX_POINTER = 1024
_SIDE = (".json", ".model", ".tiktoken", ".jinja", ".txt")
_MAYBE_LARGE = ("tokenizer.json", "vocab.json", "merges.txt", "tekken.json")
_SHOWN = 3


def refused_files(source: ByteSource) -> Mapping[str, str]:
    """Return the files of a local folder that may not be read, each with the reason."""
    return source.refused() if isinstance(source, FolderSource) else {}


def dead_links(source: ByteSource) -> Mapping[str, str]:
    """Return the links of a local folder whose targets are gone, each with its target.

    Only those of weights, configs and vocabularies are told.
    """
    if not isinstance(source, FolderSource):
        return {}
    dead = source.dead_links()
    return {file: to for file, to in dead.items() if file.endswith((*WEIGHTS, *_SIDE))}


def link_fault(source: ByteSource, dead: Mapping[str, str]) -> str:
    """Return the fault of a folder with dead links."""
    file = min(dead, key=lambda each: (not each.endswith(WEIGHTS), each))
    more = f", and so are {len(dead) - 1} more" if len(dead) > 1 else ""
    target = dead[file]
    return (
        f"{source.location}/{file} is a link to {target}, which is gone{more} (a Hugging Face cache"
        " after a clean-up, or one that was copied without what its links point to); download the"
        " model again, or copy it with `cp -rL`"
    )


def pointers(source: ByteSource, files: Mapping[str, int]) -> list[str]:
    """Return the weights and vocabularies that are pointers of git-lfs, by their first bytes."""
    found: list[str] = []
    for file in top_level(files):
        small = len(POINTER) <= files[file] <= MAX_POINTER
        large = file.endswith((*WEIGHTS, ".model", ".tiktoken")) or file in _MAYBE_LARGE
        if small and large and read_file(source, file, 0, len(POINTER)) == POINTER:
            found.append(file)
    return found


def pointer_fault(source: ByteSource, found: Collection[str]) -> str:
    """Return the fault of a folder that was cloned without its large files."""
    return (
        f"{source.location} was cloned without its large files: {_some(found)}"
        f" {'are pointers' if len(found) > 1 else 'is a pointer'} of git-lfs; run `git lfs pull` in"
        " the folder"
    )


def unfinished(source: ByteSource, files: Collection[str]) -> list[str]:
    """Return what broken downloads left in a folder, hidden files of download tools included."""
    hidden = source.unfinished() if isinstance(source, FolderSource) else ()
    return [*(file for file in top_level(files) if file.endswith(UNFINISHED)), *hidden]


def unfinished_weights(files: Collection[str], chosen: Collection[str]) -> Iterator[str]:
    """Yield the chosen files that aria2 still writes: whole by their size, and full of holes."""
    for file in chosen:
        if f"{file}.aria2" in files:
            yield file


def _some(files: Collection[str]) -> str:
    names = sorted(files)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" * (len(names) > _SHOWN))
