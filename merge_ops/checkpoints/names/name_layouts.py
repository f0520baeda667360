"""Two layouts of one model: the same weights under other names, told from names and shapes.

Versions of transformers write one model in several ways: the language model of a vision model moved
from `language_model.model.` to `model.language_model.`, MoE experts are one tensor each or fused.
Old BERT says `LayerNorm.gamma`, Meta's Llama `attention.wq`. A list of all names hides this; one
sentence says it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from merge_ops.checkpoints.header import TensorEntry

Shapes = Mapping[str, TensorEntry]
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")
_SEPARATE = re.compile(r"\.experts\.\d+\.\w+\.(weight|bias)$")
_FUSED = re.compile(r"\.experts\.(?!\d)\w+(\.weight|\.bias)?$")
# So many rules can be told in one sentence, and more of them are none.
MAX_RULES = 8
# Strangers' headers may hold a million kinds of names, and names of a million parts.
MAX_KINDS = 1_000
MAX_PARTS = 32
MAX_ALIKE = 64
SAVE_AGAIN = (
    "Versions of transformers name and cut the same weights differently: load one of the two with"
    " the version that wrote the other, save it again (`save_pretrained`), and merge that"
)


@dataclass(frozen=True)
class LayoutDifference:
    """A layout difference says which names stand for the same tensors, in words.

    `ours` and `theirs` are the names that it explains.
    """

    problem: str
    ours: frozenset[str]
    theirs: frozenset[str]


def layout_difference(
    base: str, ours: Collection[str], theirs: Collection[str], entries: tuple[Shapes, Shapes]
) -> LayoutDifference | None:
    """Return what makes names of two models two layouts of one, or None where nothing does.

    `ours` are names that only the model called `base` has, `theirs` those that only the other has.
    `entries` are the tensors of both: shapes must agree. Where the other's are not known, as for an
    adapter, only the fronts of names may differ. Every kind of name of the smaller side must be
    explained.
    """
    told: list[str] = []
    known: tuple[set[str], set[str]] = set(), set()
    fused = _fused_experts(base, ours, theirs)
    if fused:
        told.append(fused[0])
        known[0].update(fused[1])
        known[1].update(fused[2])
    left = [
        [name for name in names if name not in known[side]]
        for side, names in enumerate((ours, theirs))
    ]
    rules = _renaming(left[0], left[1], entries) if left[0] and left[1] else None
    if rules:
        told.append(f"names changed from {base}'s to its own as follows: {rules[0]}")
        known[0].update(rules[1])
        known[1].update(rules[2])
    if not told:
        return None
    return LayoutDifference(
        f"is another layout of the same model than {base}: {'; '.join(told)}",
        frozenset(known[0]),
        frozenset(known[1]),
    )


def _fused_experts(
    base: str, ours: Iterable[str], theirs: Iterable[str]
) -> tuple[str, set[str], set[str]] | None:
    """MoE experts that one side keeps in one tensor a layer, and the other one by one."""
    our_single, our_fused = _experts(ours)
    their_single, their_fused = _experts(theirs)
    if our_single and their_fused:
        how = f"its MoE experts are fused ('{min(their_fused)}'), {base}'s are not"
        return f"{how} ('{min(our_single)}')", our_single, their_fused
    if our_fused and their_single:
        how = f"its MoE experts lie one by one ('{min(their_single)}'), {base}'s are fused"
        return f"{how} ('{min(our_fused)}')", our_fused, their_single
    return None


def _experts(names: Iterable[str]) -> tuple[set[str], set[str]]:
    single, fused = set[str](), set[str]()
    for name in names:
        if _SEPARATE.search(name):
            single.add(name)
        elif _FUSED.search(name):
            fused.add(name)
    return single, fused


def _renaming(
    ours: Sequence[str], theirs: Sequence[str], entries: tuple[Shapes, Shapes]
) -> tuple[str, set[str], set[str]] | None:
    """The few rules that turn our names into theirs, and the names that they explain."""
    our_kinds, their_kinds = _kinds(ours), _kinds(theirs)
    if max(len(our_kinds), len(their_kinds)) > MAX_KINDS:
        return None
    if any(kind.count(".") >= MAX_PARTS for kind in (*our_kinds, *their_kinds)):
        return None
    pairs = _paired(our_kinds, their_kinds, entries)
    rules = dict.fromkeys(_rule(*pair) for pair in pairs)
    if len(pairs) < min(len(our_kinds), len(their_kinds)) or len(rules) > MAX_RULES:
        return None
    our_known = {name for ours, _ in pairs for name in our_kinds[ours]}
    their_known = {name for _, theirs in pairs for name in their_kinds[theirs]}
    return ", ".join(rules), our_known, their_known


def _kinds(names: Iterable[str]) -> dict[str, list[str]]:
    """Names by their kind: the name with `#` for the number of a layer."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kinds[_NUMBER.sub("#", name)].append(name)
    return kinds


def _paired(
    ours: Mapping[str, list[str]], theirs: Mapping[str, list[str]], entries: tuple[Shapes, Shapes]
) -> list[tuple[str, str]]:
    """Kinds that are the same tensors, each once: those that share most parts come first."""
    found_at: dict[object, list[str]] = defaultdict(list)
    for kind in theirs:
        for key in _keys(kind):
            found_at[key].append(kind)
    scored = {
        (-_shared(kind, other), kind, other)
        for kind in ours
        for key in _keys(kind)
        for other in found_at.get(key, ())[:MAX_ALIKE]
    }
    pairs: dict[str, str] = {}
    used: set[str] = set()
    for _, our_kind, their_kind in sorted(scored):
        if our_kind in pairs or their_kind in used:
            continue
        if _alike(our_kind, their_kind, len(theirs[their_kind]) if entries[1] else 1) and _fit(
            ours[our_kind], theirs[their_kind], entries
        ):
            pairs[our_kind] = their_kind
            used.add(their_kind)
    return [(kind, pairs[kind]) for kind in ours if kind in pairs]


def _keys(kind: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """What two kinds must share one of: an end of two parts or more, or all but the last one."""
    parts = tuple(kind.split("."))
    for start in range(max(1, len(parts) - 1)):
        yield "end", parts[start:]
    for end in (len(parts) - 1, len(parts) - 2):
        if end > 1:
            yield "start", parts[:end]


def _shared(ours: str, theirs: str) -> int:
    start, end = _common(ours.split("."), theirs.split("."))
    return start + end


def _common(ours: Sequence[str], theirs: Sequence[str]) -> tuple[int, int]:
    """How many parts two names share at the end, then at the start: (start, end)."""
    shortest = min(len(ours), len(theirs))
    end = 0
    while end < shortest and ours[-1 - end] == theirs[-1 - end]:
        end += 1
    start = 0
    while start < shortest - end and ours[start] == theirs[start]:
        start += 1
    return start, end


def _alike(ours: str, theirs: str, count: int) -> bool:
    """Whether two kinds differ by more than one slip of a name.

    They share what follows the differing part, a module and its tensor at least, or are the same
    change in `count` layers.
    """
    _, end = _common(ours.split("."), theirs.split("."))
    return end >= 2 or count > 1


def _fit(ours: Sequence[str], theirs: Sequence[str], entries: tuple[Shapes, Shapes]) -> bool:
    """Whether as many tensors have one shape; the vocabulary may be another."""
    first, second = entries[0].get(ours[0]), entries[1].get(theirs[0])
    if first is None or second is None:
        return True
    alike = len(first.shape) == len(second.shape) and first.shape[1:] == second.shape[1:]
    return alike and len(ours) == len(theirs)


def _rule(ours: str, theirs: str) -> str:
    """The part that differs, in words."""
    our_parts, their_parts = ours.split("."), theirs.split(".")
    start, end = _common(our_parts, their_parts)
    before = ".".join(our_parts[start : len(our_parts) - end])
    after = ".".join(their_parts[start : len(their_parts) - end])
    if before and after:
        return f"'{before}' is '{after}'"
    follows = our_parts[len(our_parts) - end] if end else ""
    if after:
        return f"'{after}.' stands before '{follows}'"
    return f"'{before}.' is gone before '{follows}'"
