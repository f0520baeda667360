"""A tokenizer with new tokens behind its own: their ids, and what makes it find them in texts.

Ids of old tokens stay. In a BPE the new tokens are reached by merges behind all old ones
(growing_merges); a Unigram model has them with a score that wins against old pieces, the fewest
first, as Chinese-LLaMA's score 0 did. As added tokens they would be cut out of a text before it is
normalized, which puts blanks between them (▁) or never finds them; so only what is an added token
in its own tokenizer becomes one here. What a tokenizer cuts apart before its model sees it can be
no token, and is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from merge_ops.errors import Caution, CompatibilityError, Fault
from merge_ops.recipes.structures.vocabulary_step import CHINESE, VocabularyStep
from merge_ops.vocabularies.growing_merges import growing_merges, pairs_of
from merge_ops.vocabularies.offered_tokens import OfferedTokens
from merge_ops.vocabularies.token_texts import (
    Spelling,
    is_chinese,
    spelled,
    spelled_bytes,
    spelling_of,
)
from merge_ops.vocabularies.tokenizer_pieces import TokenizerChild
from merge_ops.vocabularies.tokenizers import Tokenizer, added_entry

SCORE = -0.01
"""Of a new piece of a Unigram model. Old pieces have the logarithms of their shares, -2 to -15;
with 0 a text of two new pieces would be as good as the one piece for both."""
_SUBJECT = "vocabulary.extend"


@dataclass(frozen=True)
class Extension:
    """An extension is a longer tokenizer, and for each new id the old ids of the token's parts.

    New ids follow from `first` on without gaps. `bridges` counts tokens that only lead to others.
    """

    tokenizer: Tokenizer
    first: int
    parts: Sequence[Sequence[int]]
    bridges: int
    cautions: tuple[Caution, ...]


def extended(
    step: VocabularyStep, name: str, tokenizer: Tokenizer, rows: int, offered: OfferedTokens
) -> Extension:
    """Return the tokenizer of model `name` with the tokens that it lacks of those offered.

    `rows` is the number of rows of the model's embedding. Raises CompatibilityError where the
    tokenizer cannot grow, or nothing is new; CheckpointError where the tokenizers library is
    needed and not there, or cannot load the tokenizer.
    """
    with TokenizerChild(name) as child:
        return _extended(step, name, tokenizer, rows, offered, child)


def _extended(
    step: VocabularyStep,
    name: str,
    tokenizer: Tokenizer,
    rows: int,
    offered: OfferedTokens,
    child: TokenizerChild,
) -> Extension:
    spelling = _checked(name, tokenizer, rows)
    plain, added = _new_tokens(step, tokenizer, spelling, offered)
    texts = {token: text for token, text in plain.items() if text is not None}
    whole = child.whole(tokenizer, list(texts), list(texts.values()))
    lost = {token: texts[token] for token, ok in zip(texts, whole, strict=True) if not ok}
    plain = {token: text for token, text in plain.items() if token not in lost}
    cut = list(lost.values())
    if not plain and not added:
        problem = f"offers no token that '{name}' lacks"
        problem += f" and could read ({_shown(cut)} and the like it cuts apart)" if lost else ""
        only = f" with `only: {step.only}`" if step.only else ""
        raise CompatibilityError(_SUBJECT, [Fault(offered.place, f"{problem}{only}")])
    first = max(tokenizer.tokens.values()) + 1
    made = _grown(tokenizer, spelling, first, plain, added, offered.in_order)
    after = made.tokens
    tokens = sorted(after.keys() - tokenizer.tokens.keys(), key=after.__getitem__)
    parts = child.known_parts(
        tokenizer, [spelled(token, spelling) if token in added else token for token in tokens]
    )
    reached = child.parts(made, list(plain))
    wrong = [
        token for token, ids in zip(plain, reached, strict=True) if list(ids) != [after[token]]
    ]
    if wrong:
        problem = f"would not find {_shown(wrong)} ({len(wrong)} new tokens) after all, by the"
        problem += " tokenizers library; its settings are not known here"
        raise CompatibilityError(_SUBJECT, [Fault(name, problem)])
    bridges = len(tokens) - len(plain) - len(added)
    kept = [text for text in plain.values() if text is not None]
    cautions = _cautions(name, offered, cut, kept, parts.count([]))
    return Extension(made, first, parts, bridges, cautions)


def _checked(name: str, tokenizer: Tokenizer, rows: int) -> Spelling:
    """How the tokenizer spells texts. Raises CompatibilityError where it cannot grow."""
    model = cast("Mapping[str, Any]", tokenizer.document["model"])
    spelling = spelling_of(tokenizer.document)
    faults: list[Fault] = []
    kind = model.get("type", "BPE" if "merges" in model else None)
    if kind not in ("BPE", "Unigram") or (kind == "Unigram" and spelling == "byte-level"):
        problem = f"has a tokenizer of the kind {kind}; BPE and Unigram ones are extended"
        faults.append(Fault(name, problem))
    elif spelling is None:
        problem = "has a tokenizer that neither spells bytes (byte-level) nor writes ▁ for a blank"
        faults.append(Fault(name, f"{problem}; how it would spell new tokens is not known"))
    for setting in ("continuing_subword_prefix", "end_of_word_suffix", "dropout"):
        if model.get(setting):
            problem = f"has a tokenizer with `{setting}`, which spells tokens by their place"
            faults.append(Fault(name, f"{problem}; such are not extended"))
    beyond = [token for token, number in tokenizer.tokens.items() if number >= rows]
    if beyond:
        problem = f"has {len(beyond)} tokens without a row in its embedding ({rows} rows), first"
        advice = "lengthen it (resize_token_embeddings) or take these out of its tokenizer"
        faults.append(Fault(name, f"{problem} {beyond[0]!r}; {advice}"))
    if faults or spelling is None:
        raise CompatibilityError(_SUBJECT, faults)
    return spelling


def _new_tokens(
    step: VocabularyStep, tokenizer: Tokenizer, spelling: Spelling, offered: OfferedTokens
) -> tuple[dict[str, str | None], dict[str, Mapping[str, Any]]]:
    """The plain tokens that are new, as they are spelled, with their texts; and the added ones.

    Tokens for parts of characters have no text; they are new where bytes are spelled.
    """
    known = tokenizer.tokens

    def is_new(text: str) -> bool:
        wanted = step.only != CHINESE or is_chinese(text)
        return wanted and text not in tokenizer.added and spelled(text, spelling) not in known

    added = {text: entry for text, entry in offered.added.items() if is_new(text)}
    plain: dict[str, str | None] = {}
    for text in offered.texts:
        if isinstance(text, str):
            if text not in added and is_new(text):
                plain.setdefault(spelled(text, spelling), text)
        elif spelling == "byte-level" and step.only is None and spelled_bytes(text) not in known:
            plain.setdefault(spelled_bytes(text), None)
    return plain, added


def _grown(
    tokenizer: Tokenizer,
    spelling: Spelling,
    first: int,
    plain: Mapping[str, str | None],
    added: Mapping[str, Mapping[str, Any]],
    in_order: bool,
) -> Tokenizer:
    """The tokenizer with new tokens: plain ones, added ones, then bridges.

    Every token of it stands in its model's vocabulary, added ones too: so loading gives no added
    token another id.
    """
    model = cast("dict[str, Any]", tokenizer.document["model"])
    new = [*plain, *added]
    ids = {**tokenizer.tokens, **{token: first + at for at, token in enumerate(new)}}
    entries = dict(tokenizer.added)
    entries |= {token: added_entry(token, ids[token], entry) for token, entry in added.items()}
    if model.get("type") == "Unigram":
        scores = {str(piece): float(score) for piece, score in model["vocab"]}
        least = min(scores.values())
        usual = {**dict.fromkeys(tokenizer.added, least), **dict.fromkeys(new, SCORE)} | scores
        ordered = sorted(ids, key=ids.__getitem__)
        if [ids[token] for token in ordered] != list(range(len(ordered))):
            problem = "has a Unigram tokenizer with gaps between its ids, which cannot grow"
            raise CompatibilityError(_SUBJECT, [Fault("the model", problem)])
        changed = {**model, "vocab": [[token, usual[token]] for token in ordered]}
    else:
        growing = growing_merges(ids, pairs_of(model["merges"]), spelling, first + len(new))
        for token in plain if in_order else sorted(plain, key=len):
            growing.add(token, plain[token])
        ids = growing.ids
        merges = [*map(list, pairs_of(model["merges"])), *map(list, growing.merges)]
        changed = {**model, "vocab": ids, "merges": merges}
    return Tokenizer({**tokenizer.document, "model": changed}, ids, entries)


def _cautions(
    name: str, offered: OfferedTokens, lost: Sequence[str], texts: Sequence[str], unknown: int
) -> tuple[Caution, ...]:
    found: list[Caution] = []
    if lost:
        problem = f"offers {len(lost)} tokens ({_shown(lost)}) that the tokenizer of '{name}' cuts"
        advice = "They are left out, for no text would ever have them"
        found.append(Caution(offered.place, f"{problem} apart before it looks for tokens", advice))
    latin = [text for text in texts if text.isascii() and text.strip()]
    if latin:
        problem = f"gets {len(latin)} new tokens without Chinese letters ({_shown(latin)}); texts"
        advice = f"Write `only: {CHINESE}` to take over Chinese tokens alone"
        found.append(Caution(name, f"{problem} that hold these are encoded otherwise now", advice))
    if unknown:
        problem = f"knows nothing of {unknown} new tokens but <unk>; their rows are the mean of all"
        found.append(Caution(name, problem, "Train them before the result is used"))
    return tuple(found)


def _shown(texts: Sequence[str]) -> str:
    return ", ".join(json.dumps(text, ensure_ascii=False) for text in texts[:3])
