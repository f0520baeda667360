"""How large each kind of file may be that strangers write, in one table.

A file beyond its bound is refused by name before it is read, so that a small or sparse file cannot
take memory out of all proportion. The bounds lie well above the largest that is known of each kind:
an index of DeepSeek-V3 has 9 MB, the tokenizer.json of Gemma 3 has 33 MB and 1.9 million values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from merge_ops.checkpoints.files.file_names import is_index


@dataclass(frozen=True)
class Bound:
    """A bound says how many bytes a file may have, and how many values may be in it.

    Values are counted as the text has them: a value takes up to 200 bytes once it is read.
    """

    nbytes: int
    values: int


CONFIG = Bound(32_000_000, 1_000_000)
"""config.json, tokenizer_config.json, adapter_config.json and all other JSON."""
INDEX = Bound(64_000_000, 400_000)
VOCABULARY = Bound(100_000_000, 4_000_000)
HEADER = Bound(50_000_000, 6_000_000)
"""The header of a safetensors file; the values are those of MAX_TENSORS tensors of any rank."""
ITEM = Bound(4_000_000, 200_000)
"""One line of a file of items."""

MAX_TENSORS = 300_000
"""Tensors of one model. The largest known have 140,000."""
MAX_SIDE_FILE = 200_000_000
"""A file beside the weights that is only copied."""
MAX_TEMPLATE = 4_000_000
"""A chat template by itself. The longest known have 20,000."""
MAX_ITEMS = 64_000_000
"""Bytes of a file of items."""
MAX_DOCUMENT = 2 << 20
"""Bytes of a YAML file: a recipe, models.yaml, a suite."""

_VOCABULARIES = frozenset(
    ("tokenizer.json", "vocab.json", "tekken.json", "added_tokens.json", "encoder.json")
)
BY_NAME: Mapping[str, Bound] = dict.fromkeys(_VOCABULARIES, VOCABULARY)


def bound_of(file: str) -> Bound:
    """Return the bound of a JSON file of a model, by its name."""
    name = file.rpartition("/")[2]
    if is_index(name) or name.endswith(".index.json"):
        return INDEX
    return BY_NAME.get(name, CONFIG)
