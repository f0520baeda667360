"""Steps that give a model another vocabulary: `vocabulary:`.

    vocabulary: {extend: ./chinese}                    models: [{model: ./base}]
    vocabulary: {extend: chinese_sp.model, only: chinese, pad_to_multiple_of: 64}
    vocabulary: {extend: [融合, 模型], new_rows: mean}
    vocabulary: {transplant: ./donor, approximation: omp, k: 64}

`extend` puts new tokens behind those of the model, as Chinese-LLaMA did (2304.08177): those of
another model, of a tokenizer.json or a SentencePiece model, or a list of them. `transplant` gives
the model the vocabulary of a donor, as mergekit-tokensurgeon does; rows of tokens that it lacks are
approximated (`omp`: 2506.06607; the others by measures/interpolation.py, or from parts).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

from merge_ops.errors import Fault, did_you_mean
from merge_ops.measures.interpolation import DISTANCES, SCHEMES
from merge_ops.recipes.spelling import reference, reference_faults
from merge_ops.recipes.structures.one_model import one_model_faults
from merge_ops.recipes.vocabulary_policy import MAX_MULTIPLE

VOCABULARY = "vocabulary"
EXTEND, TRANSPLANT = "extend", "transplant"
SUBWORD_MEAN, MEAN, ZERO, OMP = "subword_mean", "mean", "zero", "omp"
SUBWORD_WEIGHTED, SUBWORD_ENDS = "subword_weighted_mean", "subword_first_last"
COMMON_INTERPOLATION, LANDMARK_PCA = "common_interpolation", "landmark_pca"
NEW_ROWS = (SUBWORD_MEAN, MEAN, ZERO)
BY_ROWS = (OMP, COMMON_INTERPOLATION, LANDMARK_PCA)
"""Approximations of a row by rows of tokens that both models have."""
BY_PARTS = (SUBWORD_MEAN, SUBWORD_WEIGHTED, SUBWORD_ENDS)
"""Approximations of a row by the rows of the parts of its token's text."""
APPROXIMATIONS = (*BY_ROWS, *BY_PARTS, MEAN, ZERO)
REFUSED = {
    "subword": f"is mergekit's name of several; write one of {', '.join(BY_PARTS)}",
    "subword_sum": "gives rows that are as many times too long as a token has parts; write"
    f" {SUBWORD_MEAN}",
    "randn": f"draws rows that know nothing of their tokens; {MEAN} is a better start",
    "john_hewitt": f"draws rows around the mean of all; {MEAN} is that mean, without the noise",
    "stb": f"ends with an error in mergekit 0.1.5, so there is no result to be equal to; use {OMP}",
    "mp_rope": "turns pairs of embedding entries by a position, which is a rotation of queries and"
    f" keys, not of embeddings; it ends with an error in mergekit 0.1.5. Use {OMP}",
}
"""Approximations of mergekit-tokensurgeon that are not made here, and why."""
CHINESE = "chinese"
MOST_LISTED, MOST_LETTERS = 100_000, 200
"""Tokens of a list, and letters of one of them; trained tokens have up to 100."""
MOST_ATOMS = 1024
"""Rows that one row is put together from; 64 are usual."""
FILES = (".json", ".model", ".spm")
_KEYS = {
    EXTEND: (EXTEND, "new_rows", "only", "pad_to_multiple_of"),
    TRANSPLANT: (
        TRANSPLANT,
        "approximation",
        "k",
        "weight_scheme",
        "distance",
        "pad_to_multiple_of",
    ),
}
_EXAMPLES = "`{extend: ./chinese}` or `{transplant: ./donor}`"


@dataclass(frozen=True)
class VocabularyStep:
    """A vocabulary step says where new tokens come from, and where their rows do.

    `source` is the name of a model, or a file with one of the endings in FILES; it is None where
    `tokens` lists them. `rows` is one of NEW_ROWS, or of APPROXIMATIONS for a transplant; `scheme`
    and `distance` belong to interpolation.
    """

    kind: Literal["extend", "transplant"]
    source: str | None
    tokens: tuple[str, ...] = ()
    rows: str = SUBWORD_MEAN
    only: str | None = None
    pad_to_multiple_of: int | None = None
    k: int = 64
    scheme: str = SCHEMES[0]
    distance: str = DISTANCES[0]

    @property
    def model(self) -> str | None:
        """Return the model that new tokens come from; None for a file or a list."""
        return None if self.source is None or is_file(self.source) else self.source

    @property
    def written(self) -> dict[str, Any]:
        """Return the step as a recipe says it."""
        table: dict[str, Any] = {self.kind: self.source or list(self.tokens)}
        if self.kind == EXTEND:
            table |= {"new_rows": self.rows, **({"only": self.only} if self.only else {})}
        else:
            table["approximation"] = self.rows
            if self.rows in (OMP, COMMON_INTERPOLATION):
                table["k"] = self.k
            if self.rows == COMMON_INTERPOLATION:
                table |= {"weight_scheme": self.scheme, "distance": self.distance}
        if self.pad_to_multiple_of:
            table["pad_to_multiple_of"] = self.pad_to_multiple_of
        return {VOCABULARY: table}

    def renamed(self, names: Mapping[str, str]) -> VocabularyStep:
        """Return the step with its model under the name that `names` has for it."""
        known = self.model
        return self if known is None else replace(self, source=names.get(known, known))


def is_file(source: str) -> bool:
    """Return whether a source of tokens is a file of a tokenizer, by its ending."""
    return source.endswith(FILES)


def vocabulary_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what is wrong with `vocabulary`."""
    if VOCABULARY not in document:
        return
    yield from one_model_faults(
        document, VOCABULARY, "which changes one model and no more", allowed=("dtype", "out_dtype")
    )
    value = document[VOCABULARY]
    if not isinstance(value, dict):
        yield Fault(VOCABULARY, f"must be a mapping: {_EXAMPLES}")
        return
    table = cast("dict[Any, Any]", value)
    kinds = [kind for kind in _KEYS if kind in table]
    if len(kinds) != 1:
        told = "has both `extend` and `transplant`; write one of them" if kinds else "says neither"
        rest = "" if kinds else f" `extend` nor `transplant`; write {_EXAMPLES}"
        hints = [did_you_mean(str(key), tuple(_KEYS)) for key in table]
        yield Fault(VOCABULARY, f"{told}{rest}{next(filter(None, hints), '') if rest else ''}")
        return
    yield from _table_faults(kinds[0], table)


def _table_faults(kind: str, table: Mapping[Any, Any]) -> Iterator[Fault]:
    allowed = _KEYS[kind]
    for name in table:
        if name not in allowed:
            other = next((each for each in _KEYS if name in _KEYS[each]), None)
            hint = f" It belongs to `{other}`." if other else did_you_mean(str(name), allowed)
            problem = f"is no key of `{kind}`; allowed: {', '.join(allowed)}.{hint}"
            yield Fault(f"{VOCABULARY}.{name}", problem)
    yield from _source_faults(f"{VOCABULARY}.{kind}", kind, table[kind])
    words = ("new_rows", NEW_ROWS) if kind == EXTEND else ("approximation", APPROXIMATIONS)
    yield from _word_faults(table, *words)
    yield from _word_faults(table, "only", (CHINESE,))
    if "only" in table and isinstance(table[kind], list):
        yield Fault(f"{VOCABULARY}.only", "has no effect on a list; leave out what is not meant")
    asked = table.get("approximation", OMP)
    for name, users in (("k", (OMP, COMMON_INTERPOLATION)),
                        ("weight_scheme", (COMMON_INTERPOLATION,)),
                        ("distance", (COMMON_INTERPOLATION,))):  # fmt: skip
        if name in table and name in allowed and asked not in users:
            told = " or ".join(f"`approximation: {each}`" for each in users)
            yield Fault(f"{VOCABULARY}.{name}", f"has no effect without {told}; remove it")
    yield from _word_faults(table, "weight_scheme", SCHEMES)
    yield from _word_faults(table, "distance", DISTANCES)
    for name, most in (("pad_to_multiple_of", MAX_MULTIPLE), ("k", MOST_ATOMS)):
        value = table.get(name)
        if name in allowed and name in table and (type(value) is not int or not 1 <= value <= most):
            problem = f"is {value!r}; it must be a whole number from 1 to {most}"
            yield Fault(f"{VOCABULARY}.{name}", problem)


def _word_faults(table: Mapping[Any, Any], name: str, known: Sequence[str]) -> Iterator[Fault]:
    if name == "approximation" and (why := REFUSED.get(str(table.get(name)))):
        yield Fault(f"{VOCABULARY}.{name}", f"is {table[name]!r}, which {why}")
    elif name in table and table[name] not in tuple(known):
        hint = did_you_mean(str(table[name]), known)
        problem = f"is {table[name]!r}; it must be one of {', '.join(known)}.{hint}"
        yield Fault(f"{VOCABULARY}.{name}", problem)


def _source_faults(where: str, kind: str, value: Any) -> Iterator[Fault]:
    if kind == EXTEND and isinstance(value, list):
        yield from _list_faults(where, cast("list[Any]", value))
        return
    yield from reference_faults(where, value)
    if kind == TRANSPLANT and isinstance(value, str) and is_file(value):
        problem = f"is {value!r}, a tokenizer; rows are taken over from a donor's, so name a model"
        yield Fault(where, problem)


def _list_faults(where: str, tokens: Sequence[Any]) -> Iterator[Fault]:
    if not tokens:
        yield Fault(where, "is empty; list the new tokens, or name a model or a tokenizer's file")
    if len(tokens) > MOST_LISTED:
        problem = f"lists {len(tokens)} tokens; at most {MOST_LISTED} may stand in a recipe"
        yield Fault(where, f"{problem}: put them into a tokenizer.json")
        return
    seen: set[str] = set()
    for position, token in enumerate(tokens):
        place = f"{where}[{position}]"
        if not isinstance(token, str) or not token.strip():
            yield Fault(place, f"is {token!r}; a token is text, in quotes where YAML needs them")
        elif len(token) > MOST_LETTERS:
            yield Fault(place, f"has {len(token)} letters; at most {MOST_LETTERS} make a token")
        elif token in seen:
            yield Fault(place, f"is {token!r}, which stands in the list before")
        else:
            seen.add(token)


def vocabulary_step(document: Mapping[str, Any]) -> VocabularyStep | None:
    """Return the step of a document without faults; None where it is another one."""
    if VOCABULARY not in document:
        return None
    table = cast("dict[str, Any]", document[VOCABULARY])
    if TRANSPLANT in table:
        source, rows = str(reference(table[TRANSPLANT])), table.get("approximation", OMP)
        multiple = table.get("pad_to_multiple_of")
        return VocabularyStep(
            TRANSPLANT,
            source,
            rows=rows,
            pad_to_multiple_of=multiple,
            k=table.get("k", 64),
            scheme=table.get("weight_scheme", SCHEMES[0]),
            distance=table.get("distance", DISTANCES[0]),
        )
    value = table[EXTEND]
    listed = tuple(cast("list[str]", value)) if isinstance(value, list) else ()
    return VocabularyStep(
        EXTEND,
        None if listed else str(reference(value)),
        listed,
        table.get("new_rows", SUBWORD_MEAN),
        table.get("only"),
        table.get("pad_to_multiple_of"),
    )
