"""Which files of a folder hold the weights: those that transformers loads, and never two sets.

transformers looks for model.safetensors, then for its index, then for pytorch_model.bin and its
index, and takes the first that is there. What lies beside is passed over where everybody knows it
(a pickled copy, another layout, a variant in another dtype), told where it may have been meant, and
refused where it is a second whole set of weights.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import cast

from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.files.file_names import (
    ADAPTER_FILES,
    INDEX,
    PICKLE,
    PICKLE_INDEX,
    SINGLE,
    WEIGHTS,
    is_consolidated,
    is_index,
    loose_pickles,
    of_training,
    plain_name,
    ranks_of,
    reason_to_pass_over,
    shard_of,
    top_level,
)
from merge_ops.checkpoints.files.json_files import JsonFiles
from merge_ops.errors import Caution, CheckpointError

_SHOWN = 3


@dataclass(frozen=True)
class WeightChoice:
    """A weight choice is the files to read, and why the others are not.

    `promised` holds the tensors that the index promises in each chosen file; None stands for a file
    that no index names. A choice without files has `faults`, or nothing that looks like weights was
    found. `index` is the index that was read for it. `two_sets` says that the folder can be read in
    two ways.
    """

    promised: Mapping[str, Sequence[str] | None] = field(
        default_factory=dict[str, "Sequence[str] | None"]
    )
    why: str = ""
    index: str | None = None
    passed_over: Mapping[str, str] = field(default_factory=dict[str, str])
    cautions: tuple[Caution, ...] = ()
    faults: tuple[str, ...] = ()
    two_sets: bool = False

    @property
    def pickled(self) -> bool:
        """Return whether the chosen files are pickles, which are converted before they are read."""
        return any(not file.endswith(".safetensors") for file in self.promised)


class _Folder:
    """A folder's top level, its indexes read once."""

    def __init__(self, source: ByteSource, files: Mapping[str, int]) -> None:
        self.at = source.location
        self.files = set(top_level(files))
        self._source, self._sizes = source, files

    def index(self, file: str) -> dict[str, list[str]]:
        """Return the shards that an index names. Raises CheckpointError where it is unusable."""
        table = JsonFiles(self._source, self._sizes).read(file).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise CheckpointError(f"{self.at}/{file}: 'weight_map' is missing")
        named: dict[str, list[str]] = {}  # a path is looked at once, however many tensors it has
        for tensor, shard in cast(dict[str, object], table).items():
            if not isinstance(shard, str):
                self._inside(file, shard)
            else:
                named.setdefault(shard, []).append(tensor)
        shards: dict[str, list[str]] = {}
        for shard, tensors in named.items():
            shards.setdefault(self._inside(file, shard), []).extend(tensors)
        return shards

    def absent(self, shards: Collection[str]) -> list[str]:
        """Return the shards that are not there."""
        return sorted(shard for shard in shards if shard not in self.files)

    def _inside(self, index_file: str, shard: object) -> str:
        path = PurePosixPath(str(shard))
        if not isinstance(shard, str) or path.is_absolute() or ".." in path.parts or "\\" in shard:
            raise CheckpointError(
                f"{self.at}/{index_file}: shard {shard!r} lies outside the folder; an index may"
                " only name files beside it"
            )
        return path.as_posix()


def choose_weights(
    source: ByteSource, files: Mapping[str, int], adapter: bool = False
) -> WeightChoice:
    """Return which files hold the weights: of the model, or, with `adapter`, of an adapter.

    Raises CheckpointError where an index is damaged or names files outside the folder.
    """
    folder = _Folder(source, files)
    choice = _adapter(folder) if adapter else _model(folder)
    return _with_the_rest(folder, choice)


def model_weights(source: ByteSource, files: Mapping[str, int]) -> str | None:
    """Return the file that stands for a model's weights under a name that loaders know, or None.

    An index counts where a shard of it is there: one alone may be left from a conversion.
    """
    folder = _Folder(source, files)
    for name in (SINGLE, INDEX, PICKLE, PICKLE_INDEX, *filter(is_index, sorted(folder.files))):
        if name not in folder.files:
            continue
        if not name.endswith(".json"):
            return name
        shards = folder.index(name)
        if len(folder.absent(shards)) < len(shards) and set(shards).isdisjoint(ADAPTER_FILES):
            return name
    return None


def _adapter(folder: _Folder) -> WeightChoice:
    here = [file for file in ADAPTER_FILES if file in folder.files]
    return WeightChoice({here[0]: None}, f"{here[0]} is there") if here else WeightChoice()


def _model(folder: _Folder) -> WeightChoice:
    """The weights that transformers takes, or the only ones that are there."""
    if SINGLE in folder.files:
        return _single(folder, SINGLE, INDEX)
    indexes = sorted(file for file in folder.files if is_index(file))
    if INDEX in indexes:
        return _sharded(folder, INDEX)
    if PICKLE in folder.files:
        return _single(folder, PICKLE, PICKLE_INDEX)
    if PICKLE_INDEX in folder.files:
        return _sharded(folder, PICKLE_INDEX)
    plain = [
        file
        for file in indexes
        if plain_name(file) not in folder.files and not is_consolidated(file)
    ] or indexes
    if len(plain) == 1:
        single = plain[0].replace(".safetensors.index.json", ".safetensors")
        if single in folder.files:
            return _single(folder, single, plain[0])
        return _sharded(folder, plain[0])
    if plain:
        return WeightChoice(faults=(_two(folder, *plain[:2]),), two_sets=True)
    return _loose(folder)


def _single(folder: _Folder, single: str, index: str) -> WeightChoice:
    """One file, which transformers prefers to an index beside it."""
    why = f"{single} is there, and transformers takes it first"
    if index not in folder.files:
        return WeightChoice({single: None}, why)
    shards = folder.index(index)
    if set(shards) == {single}:
        return WeightChoice(dict(shards), f"{index} names {single} alone", index)
    if single in shards:
        others = _some(sorted(set(shards) - {single}))
        fault = (
            f"{folder.at}: {index} names {single} and {others}, but transformers reads {single}"
            f" alone; remove the stale file, or rename {single} as a shard"
        )
        return WeightChoice(faults=(fault,), two_sets=True)
    absent = folder.absent(shards)
    if not absent:
        return WeightChoice(faults=(_two(folder, single, index),), two_sets=True)
    caution = Caution(
        folder.at,
        f"has {index} beside {single}, and {len(absent)} of the {len(shards)} shards that it names"
        f" are not there ({_some(absent)}); {single} is taken, as transformers does",
        f"Remove {index} and what is left of its shards, or {single} and download the shards again",
    )
    return WeightChoice(
        {single: None},
        why,
        None,
        dict.fromkeys([index, *(set(shards) - set(absent))], "left from an older set of weights"),
        (caution,),
    )


def _sharded(folder: _Folder, index: str) -> WeightChoice:
    """The shards of an index; each must be there, and none of the same set beside it."""
    shards = folder.index(index)
    absent = folder.absent(shards)
    if absent:
        more = f" (and {len(absent) - 1} more of {len(shards)})" if len(absent) > 1 else ""
        faults = [f"{folder.at}/{index}: shard {absent[0]} is not there{more}; download it again"]
        whole = [file for file in (PICKLE,) if file in folder.files and index == INDEX]
        if whole:
            faults[0] += f", or remove {index} to have {whole[0]} read"
        return WeightChoice(faults=tuple(faults))
    named = {shard_of(file) for file in shards}
    counts = {(each[0], each[2]) for each in named if each is not None}
    forgotten = sorted(
        file
        for file in folder.files
        if (shard := shard_of(file)) and (shard[0], shard[2]) in counts and file not in shards
    )
    if forgotten:
        fault = (
            f"{folder.at}/{index}: does not name {_some(forgotten)}, which the count in the name"
            " makes one of its shards; files of two revisions are mixed, or the index is cut:"
            " download the index again, or remove the file"
        )
        return WeightChoice(faults=(fault,))
    why = f"{index} names {len(shards)} file{'s' * (len(shards) > 1)}, and all are there"
    return WeightChoice(dict(shards), why, index)


def _loose(folder: _Folder) -> WeightChoice:
    """The only file of weights under a name that no loader prefers."""
    loose = sorted(
        file
        for file in folder.files
        if file.endswith(".safetensors")
        and file not in ADAPTER_FILES
        and plain_name(file) not in folder.files
        and not of_training(file)
    )
    loose = [file for file in loose if not is_consolidated(file)] or loose
    if len(loose) == 1:
        return _only(folder, loose[0])
    if loose:
        shards = [file for file in loose if shard_of(file)]
        how = (
            f"they are shards without their index ({INDEX}); download it again"
            if len(shards) == len(loose)
            else f"name the one that is meant, such as {folder.at}/{loose[0]}"
        )
        fault = (
            f"{folder.at} holds {len(loose)} .safetensors files and no index; {SINGLE} or shards"
            f" with {INDEX} are expected, and these are {_some(loose)}: {how}"
        )
        return WeightChoice(faults=(fault,), two_sets=len(shards) < len(loose))
    pickles = [file for file in loose_pickles(folder.files) if file not in ADAPTER_FILES]
    if len(pickles) == 1:
        return _only(folder, pickles[0])
    if pickles and pickles != ranks_of(pickles):  # slices of one model are told elsewhere
        fault = (
            f"{folder.at} holds {len(pickles)} files of pickled weights and no index"
            f" ({_some(pickles)}); name the one that is meant, such as {folder.at}/{pickles[0]}"
        )
        return WeightChoice(faults=(fault,), two_sets=True)
    return WeightChoice()


def _only(folder: _Folder, file: str) -> WeightChoice:
    """The only file of weights, where its name does not say that it is a part of them."""
    shard = shard_of(file)
    if shard is None or shard[2] == 1:
        return WeightChoice({file: None}, f"{file} is the only file of weights")
    fault = (
        f"{folder.at} holds {file} alone, by its name one of {shard[2]} shards, and no index;"
        " download the model again, or, where the file holds the whole model, call it"
        f" {SINGLE if file.endswith('.safetensors') else PICKLE}"
    )
    return WeightChoice(faults=(fault,))


def _with_the_rest(folder: _Folder, choice: WeightChoice) -> WeightChoice:
    """Add every file of weights that is not chosen, with the reason, or a caution."""
    if not choice.promised:
        return choice
    over, cautions = dict(choice.passed_over), list(choice.cautions)
    strays: list[str] = []
    for file in sorted(folder.files - {choice.index} - set(choice.promised) - set(over)):
        if is_index(file) or file.endswith(".bin.index.json"):
            over[file] = "an index of weights that are not taken"
        elif file.endswith(WEIGHTS):
            reason = reason_to_pass_over(file, choice.promised)
            over[file] = reason or "no index names it, and no loader takes it by its name"
            if reason is None:
                strays.append(file)
    if strays:
        verb = "are" if len(strays) > 1 else "is"
        cautions.append(
            Caution(
                folder.at,
                f"holds {_some(strays)}, which {verb} not read: no index names it, and transformers"
                " does not load it",
                "Where it belongs to the model, the index is not complete: download it again",
            )
        )
    return dataclasses.replace(choice, passed_over=over, cautions=tuple(cautions))


def _two(folder: _Folder, one: str, other: str) -> str:
    return (
        f"{folder.at} holds two sets of weights, {one} and the shards of {other}, and both are"
        f" whole; remove or move the one that is not meant (transformers takes {one})"
        if not is_index(one)
        else f"{folder.at} holds two sets of weights, the shards of {one} and those of {other};"
        " remove or move the one that is not meant"
    )


def _some(files: Sequence[str]) -> str:
    shown = ", ".join(files[:_SHOWN])
    return shown if len(files) <= _SHOWN else f"{shown} and {len(files) - _SHOWN} more"
