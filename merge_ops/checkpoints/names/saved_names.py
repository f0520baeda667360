"""One module under the names that versions of transformers give it, in files and in memory.

transformers 5 loads a Qwen2.5-VL whose file says `model.layers.0` and `visual.blocks.0` as
`model.language_model.layers.0` and `model.visual.blocks.0`, and saves the file's names again. PEFT
names an adapter's modules as they are in memory. The rules are those of
`transformers/conversion_mapping.py` that rename and do no more (tests/oracle has PEFT make such
adapters).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

_FRONTS = frozenset({"model", "language_model"})
_PARTS = (
    (re.compile(r"\bencoder\.layer\."), "layers."),
    (re.compile(r"\battention(?:\.attention|\.self)?\.query\b"), "attention.q_proj"),
    (re.compile(r"\battention(?:\.attention|\.self)?\.key\b"), "attention.k_proj"),
    (re.compile(r"\battention(?:\.attention|\.self)?\.value\b"), "attention.v_proj"),
    (re.compile(r"\battention\.output\.dense\b"), "attention.o_proj"),
    (re.compile(r"\bintermediate\.dense\b"), "mlp.fc1"),
    (re.compile(r"(?<!attention\.)\boutput\.dense\b"), "mlp.fc2"),
)


def same_modules(names: Iterable[str], wanted: Collection[str]) -> Mapping[str, str] | None:
    """Return for each wanted tensor the name among `names` that means the same tensor.

    It is None where one of them has no such name, or more than one.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_plain(name), []).append(name)
    renaming = {name: found.get(_plain(name), []) for name in wanted}
    if any(len(others) != 1 for others in renaming.values()):
        return None
    chosen = {name: others[0] for name, others in renaming.items()}
    return chosen if len({*chosen.values()}) == len(chosen) else None


def _plain(name: str) -> str:
    """A name without what versions put in front of it, and with the newest names of its parts."""
    parts = name.split(".")
    while len(parts) > 1 and parts[0] in _FRONTS:
        parts = parts[1:]
    plain = ".".join(parts)
    for pattern, newest in _PARTS:
        plain = pattern.sub(newest, plain)
    return plain
