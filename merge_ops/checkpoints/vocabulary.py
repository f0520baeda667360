"""Which row of the embedding each token has, from whatever files a model has for its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import read_file
from merge_ops.checkpoints.files.file_bounds import VOCABULARY
from merge_ops.checkpoints.files.json_files import Kept
from merge_ops.checkpoints.names.tensor_names import is_vocabulary
from merge_ops.checkpoints.vocabulary_forms import (
    LINES,
    MALFORMED,
    OF_JSON,
    PIECES,
    TOKENIZER,
    VOCAB,
    files_by_form,
    rows_in,
)
from merge_ops.errors import CheckpointError

CONFIG_FILE, ADDED_FILE = "tokenizer_config.json", "added_tokens.json"
SPECIAL_FILE = "special_tokens_map.json"
_SPECIAL_NAMES = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
    "additional_special_tokens", "extra_special_tokens",
)  # fmt: skip
# Loading gives tokens that are named without a row the next ones, with these forms alone.
_CONTINUED = (TOKENIZER, VOCAB, LINES, PIECES)
# T5's class makes these by itself, whether a file names them or not.
_OF_CLASS = "<extra_id_"
# Experts are compared with their base one after the other: its vocabulary and each of theirs, and
# the two of a second merge.
_known = Kept[Mapping[str, int]](4)


@dataclass(frozen=True)
class VocabularyFile:
    """A vocabulary file is what says the row of each token of a model, in one of the forms.

    `folder` is the model or adapter that has it. `stated` holds the further tokens with a row of
    added_tokens.json and tokenizer_config.json, `named` those that have no row there. `in_code` is
    true where code of the model's own makes tokens.
    """

    folder: Checkpoint
    form: str
    file: str
    stated: Mapping[str, int]
    named: tuple[str, ...]
    in_code: bool

    def same_bytes(self, other: VocabularyFile) -> bool:
        """Return whether two models have the same file and the same further tokens.

        Raises CheckpointError where a file is too long.
        """
        if (self.form, self.stated, self.named) != (other.form, other.stated, other.named):
            return False
        return self._digest() == other._digest()

    def rows(self) -> Mapping[str, int]:
        """Return the row of each token, the same mapping for equal bytes; without further tokens.

        Raises CheckpointError where the file holds no vocabulary of its form.
        """
        try:
            digest = self._digest()
            known = _known.get((digest, self.form))
            if known is None:
                known = _known.keep((digest, self.form), rows_in(self.form, self._content()))
        except MALFORMED as error:
            place = self.folder.source.location
            raise CheckpointError(f"{place}/{self.file}: is no vocabulary ({error})") from error
        return known

    def all_rows(self) -> tuple[dict[str, int], frozenset[str]]:
        """Return the row of each token, and the tokens whose row is not sure.

        Not sure are tokens that no file gives a row, and those that code of the model's own may
        know as well. Raises CheckpointError where the file holds no vocabulary of its form.
        """
        rows = dict(self.rows())
        taken = frozenset(rows.values() if self.form == TOKENIZER and self.stated else ())
        further = {token: row for token, row in self.stated.items() if token not in rows}
        named = [token for token, row in further.items() if row in taken]
        unsure = {token for token in further if self.in_code or token.startswith(_OF_CLASS)}
        rows |= {token: row for token, row in further.items() if row not in taken}
        if self.form in _CONTINUED and not self.in_code:
            following = max(rows.values()) + 1
            for token in (*named, *self.named):
                if token not in rows and not token.startswith(_OF_CLASS):
                    rows[token] = following
                    unsure.add(token)
                    following += 1
        return rows, frozenset(unsure)

    def _digest(self) -> str:
        return self.folder.json_files.digest(self.file)

    def _content(self) -> Any:
        if self.form in OF_JSON:
            return self.folder.json_files.read(self.file)
        size = self.folder.files[self.file]
        if size > VOCABULARY.nbytes:
            raise ValueError(f"it has {size} bytes, and at most {VOCABULARY.nbytes} are read")
        return read_file(self.folder.source, self.file, 0, size)


def vocabulary_files(checkpoint: Checkpoint) -> tuple[str, ...]:
    """Return the names of the files that say which token each row of the embedding has.

    The first is the vocabulary, others add tokens to it. It is empty where there is none.
    """
    folder = _folder_of(checkpoint)
    found = list(files_by_form(folder.files).values())[:1]
    if not found:
        return ()
    further = (ADDED_FILE,) if found[0] != TOKENIZER else ()
    return (*found, *(each for each in (*further, CONFIG_FILE) if each in folder.files))


def vocabularies_of(checkpoint: Checkpoint) -> dict[str, VocabularyFile]:
    """Return a model's vocabulary in each form that it has, the preferred one first.

    Of a model with an adapter they are the adapter's where it has an embedding of its own and a
    tokenizer beside it. Raises CheckpointError where a JSON file beside them cannot be read.
    """
    folder = _folder_of(checkpoint)
    files = files_by_form(folder.files)
    if not files:
        return {}
    config, special, added = (
        _object_in(folder, file) for file in (CONFIG_FILE, SPECIAL_FILE, ADDED_FILE)
    )
    try:
        decoder = _decoder(config)
        listed = {str(token): int(row) for token, row in added.items()}
    except MALFORMED as error:
        place = folder.source.location
        raise CheckpointError(
            f"{place}: the added tokens of its tokenizer are malformed"
        ) from error
    named = tuple(dict.fromkeys([*_special(config), *_special(special)]))
    in_code = "auto_map" in config or any(name.startswith("tokenization_") for name in folder.files)
    return {
        form: VocabularyFile(
            folder,
            form,
            file,
            decoder if form == TOKENIZER else {**listed, **decoder},
            named,
            in_code and form != TOKENIZER,
        )
        for form, file in files.items()
    }


def vocabulary(checkpoint: Checkpoint) -> Mapping[str, int] | None:
    """Return the row of each token that the preferred vocabulary file names.

    It is None where the checkpoint has no such file, or none that can be used.
    """
    try:
        found = next(iter(vocabularies_of(checkpoint).values()), None)
        return found.rows() if found else None
    except CheckpointError:
        return None


def vocabulary_rows(checkpoint: Checkpoint) -> int | None:
    """Return the rows of the embedding, or None where no tensor is known to have one a token."""
    rows = [entry.shape[0] for name, entry in checkpoint.tensors.items()
            if is_vocabulary(name) and len(entry.shape) == 2]  # fmt: skip
    return max(rows, default=None)


def _folder_of(checkpoint: Checkpoint) -> Checkpoint:
    """The folder whose tokenizer files count: the model's, or those of an adapter on it."""
    if not checkpoint.made_of:
        return checkpoint
    under, adapter = checkpoint.made_of[0], checkpoint.made_of[-1]
    if files_by_form(adapter.files) and any(map(is_vocabulary, checkpoint.overlays)):
        return adapter
    return _folder_of(under)


def _object_in(folder: Checkpoint, file: str) -> Mapping[str, Any]:
    return folder.json_files.read(file) if file in folder.json_files else {}


def _decoder(config: Mapping[str, Any]) -> dict[str, int]:
    """The tokens of `added_tokens_decoder`, in the order of their rows."""
    decoder = cast(Mapping[str, Mapping[str, Any]], config.get("added_tokens_decoder") or {})
    pairs = sorted((int(row), str(entry["content"])) for row, entry in decoder.items())
    return {token: row for row, token in pairs}


def _special(config: Mapping[str, Any]) -> Iterator[str]:
    """Tokens that a config names as special, in the order of loading."""
    for name in _SPECIAL_NAMES:
        value = config.get(name)
        for each in cast(list[Any], value) if isinstance(value, list) else [value]:
            token = cast(dict[str, Any], each).get("content") if isinstance(each, dict) else each
            if isinstance(token, str) and token:
                yield token
