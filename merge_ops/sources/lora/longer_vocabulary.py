"""Adapters for a longer vocabulary: an embedding and a head saved whole, with rows of their own.

Chinese-LLaMA-Alpaca's adapters are of this kind, as are those of trainers that add tokens: the base
was lengthened by `resize_token_embeddings` before the adapter was trained, and every tensor with a
row for each token is saved with it. These tensors replace the base's, `vocab_size` follows them,
and the tokenizer is the one in the adapter's folder: it alone knows the new rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from merge_ops.checkpoints.checkpoint import Checkpoint, TensorSource, source_of
from merge_ops.checkpoints.configs.config import with_vocabulary
from merge_ops.checkpoints.files.byte_sources import ByteSource
from merge_ops.checkpoints.names.tensor_names import is_vocabulary
from merge_ops.checkpoints.names.ties import find_source, tied_tensors
from merge_ops.errors import Caution, Fault

# Files that say which token has which row; one of them makes a tokenizer.
VOCABULARIES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
# Files that belong to a tokenizer, and mean its rows.
TOKENIZER_FILES = (*VOCABULARIES, "merges.txt", "added_tokens.json")
# Files that may stay the base's where the adapter's folder has none.
TOKENIZER_SETTINGS = ("tokenizer_config.json", "special_tokens_map.json", "chat_template*")


@dataclasses.dataclass(frozen=True, eq=False)
class LaidOver:
    """A folder laid over another one: the files of `above`, and those of `below` that stay.

    It is a ByteSource, and several threads may read it at once.
    """

    below: ByteSource
    above: ByteSource
    files_above: Mapping[str, int]
    files_below: Mapping[str, int]

    @property
    def location(self) -> str:
        """Return the place of the folder below, which has the weights."""
        return self.below.location

    def sizes(self) -> Mapping[str, int]:
        """Return every file's size in bytes."""
        return {**self.files_below, **self.files_above}

    def read_into(self, file: str, offset: int, buffer: memoryview) -> None:
        """Fill `buffer` with the file's bytes from `offset`.

        Raises OSError where the file is not there or ends before.
        """
        source = self.above if file in self.files_above else self.below
        source.read_into(file, offset, buffer)


def replaces_rows(tensor: str, before: TensorSource, saved: TensorSource) -> bool:
    """Return whether a saved tensor differs from the base's in its number of tokens alone."""
    matrices = len(before.shape) == len(saved.shape) and before.shape[1:] == saved.shape[1:]
    return matrices and is_vocabulary(tensor)


def rows_of(
    base: Checkpoint, overlays: Mapping[str, TensorSource]
) -> tuple[int | None, list[Fault]]:
    """Return the rows of the vocabulary that an adapter brings; None where they are the base's.

    With them come the faults: every tensor with a row for each token must come with these rows.
    """
    changed: dict[str, tuple[int, int]] = {}
    for tensor, overlay in overlays.items():
        before = find_source(base, tensor)
        if before is not None and before.shape != overlay.shape:
            changed[tensor] = (before.shape[0], overlay.shape[0])
    if not changed:
        return None, []
    tensor, (rows, wanted) = next(iter(changed.items()))
    copies = tied_tensors(base)
    others = [each for each in (*base.tensors, *overlays) if is_vocabulary(each)]
    faults: list[Fault] = []
    for name in dict.fromkeys(others):
        source = overlays.get(name) or source_of(base, name)
        if source is None or (name in copies and name not in overlays):
            continue
        if source.shape[0] != wanted and source.shape[0] in {rows, *_rows_after(changed)}:
            shapes = f"is {list(overlays[tensor].shape)}, but {[rows, *source.shape[1:]]} in"
            problem = f"{shapes} {base.name}, and '{name}' has {source.shape[0]} rows"
            advice = "save every tensor with a row for each token (modules_to_save: embed_tokens"
            advice += f" and lm_head), or {longer_base(wanted)}"
            faults.append(Fault(f"'{tensor}'", f"{problem}; {advice}"))
    return wanted, faults


def longer_base(rows: int) -> str:
    """Return the advice to give the base as many rows as an adapter was trained with."""
    return (
        f"bring the base to {rows} rows first: load it with transformers,"
        f" resize_token_embeddings({rows}), and save it"
    )


def with_tokens_of(adapter: Checkpoint, stacked: Checkpoint, rows: int | None) -> Checkpoint:
    """Return a base with an adapter on it, with the adapter's tokenizer and number of rows.

    Without a tokenizer in the adapter's folder it keeps the base's; where `rows` is given, the
    number of rows that the adapter brings, a caution says so.
    """
    config = stacked.config if rows is None else with_vocabulary(stacked.config, rows)
    above = {
        name: size
        for name, size in adapter.files.items()
        if _matches(name, TOKENIZER_FILES) or _matches(name, TOKENIZER_SETTINGS)
    }
    if has_vocabulary(above):
        below = {
            name: size
            for name, size in stacked.files.items()
            if not _matches(name, TOKENIZER_FILES)
        }
        source = LaidOver(stacked.source, adapter.source, above, below)
        files = source.sizes()
        return dataclasses.replace(stacked, config=config, source=source, files=files)
    if rows is None:
        return stacked
    caution = Caution(
        stacked.name,
        f"has {rows} rows for tokens by its adapter, whose folder holds no tokenizer; the base's is"
        " written, which does not know them all",
        f"Put the tokenizer that the adapter was trained with into {adapter.source.location}",
    )
    return dataclasses.replace(stacked, config=config, cautions=(*stacked.cautions, caution))


def _rows_after(changed: Mapping[str, tuple[int, int]]) -> set[int]:
    return {after for _, after in changed.values()}


def has_vocabulary(files: Iterable[str]) -> bool:
    """Return whether one of a folder's files says which token has which row."""
    return any(_matches(name, VOCABULARIES) for name in files)


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    path = PurePosixPath(name)
    return len(path.parts) == 1 and any(path.match(pattern) for pattern in patterns)
