"""The parts that a tokenizer cuts texts into: a limited child asks the tokenizers library."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from merge_ops.children import ClosedAtEnd, LimitedChild
from merge_ops.errors import CheckpointError, ChildError
from merge_ops.vocabularies.tokenizers import Tokenizer

MODULE = "merge_ops.children.tokenizer_child"
MEMORY = 4 << 30
"""Bytes of data; a tokenizer of 260,000 tokens takes a twentieth."""
CPU_SECONDS = 600
"""CPU time of one answer; the texts of 100,000 tokens take a few."""


class TokenizerChild(ClosedAtEnd):
    """A child that cuts texts by the tokenizers of one model, which messages call `name`.

    Its methods raise CheckpointError where the tokenizers library is not installed, or cannot load
    the tokenizer.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._child = LimitedChild(MODULE, memory=MEMORY, cpu_seconds=CPU_SECONDS)

    def parts(self, tokenizer: Tokenizer, spelled: Sequence[str]) -> list[list[int]]:
        """Return the ids of the parts of each text, given as the tokenizer's tokens spell it."""
        return self._ask(tokenizer, spelled, spelled)["pieces"]

    def known_parts(self, tokenizer: Tokenizer, spelled: Sequence[str]) -> list[list[int]]:
        """Return the ids of the parts of each text, none where they say no more than <unk>."""
        model = tokenizer.document["model"]
        unknown = model.get("unk_id"), tokenizer.tokens.get(str(model.get("unk_token")))
        found = self.parts(tokenizer, spelled)
        return [[] if set(ids) <= set(unknown) else ids for ids in found]

    def whole(
        self, tokenizer: Tokenizer, spelled: Sequence[str], texts: Sequence[str]
    ) -> list[bool]:
        """Return of each text whether the tokenizer looks for tokens in all of it at once."""
        return self._ask(tokenizer, spelled, texts)["whole"]

    def _ask(
        self, tokenizer: Tokenizer, spelled: Sequence[str], texts: Sequence[str]
    ) -> dict[str, Any]:
        text = tokenizer.rewritten().decode()
        request = {"tokenizer": text, "spelled": list(spelled), "texts": list(texts)}
        doing = f"cuts texts by the tokenizer of '{self._name}'"
        try:
            told = self._child.ask(request, doing)
        except ChildError as error:
            raise CheckpointError(
                f"model '{self._name}': its tokenizer cannot be used: {error}"
            ) from error
        if "missing" in told:
            raise CheckpointError(
                f"model '{self._name}': another vocabulary needs the tokenizers library, which is"
                " not installed; run: pip install tokenizers"
            )
        return told

    def close(self) -> None:
        """End the child."""
        self._child.close()
