"""What a written answer is worth: each metric of own generation items as a pure function.

A model's text and the item's right answers go in, a value between 0 and 1 comes out. Letters of
several right choices, numbers, expressions and ROUGE are read from the text as stated here, once.
"""

import re
import string
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from functools import lru_cache
from typing import Any

LETTERS = "ABCDEFGHIJ"
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
WRITTEN_METRICS = ("exact_match", "number", "regex", *ROUGE)
"""Metrics of written answers that need nothing but the text."""
LATER_METRICS = ("judge", "code")
"""Metrics of written answers that somebody else gives, after the model has written."""

_ANNOUNCED = re.compile(r"答案|正确选项|\banswers?\b", re.IGNORECASE)
_NUMBER = re.compile(r"(?<![\d.,])[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?")
_MARKED = "####"
_CJK = "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af"
_TOKEN = re.compile(rf"[{_CJK}]|[a-z0-9]+")


def letters_in(text: str, options: int) -> frozenset[str]:
    """Return the letters that a text chooses among the first `options` of A to J.

    They are those of the first run of letters after the word for "answer" (答案, answer), or else
    of the first run anywhere. In a run stand letters, and between them nothing, spaces, commas, 、
    or 和, 与, and. A letter that belongs to a Latin word is none; full-width ones are letters too.
    """
    plain = unicodedata.normalize("NFKC", text)
    run = _run_of_letters(LETTERS[:options])
    announced = _ANNOUNCED.search(plain)
    found = run.search(plain, announced.end()) if announced else None
    found = found or run.search(plain)
    return frozenset(re.findall(rf"[{LETTERS[:options]}]", found[0])) if found else frozenset()


@lru_cache
def _run_of_letters(letters: str) -> re.Pattern[str]:
    between = r"\s{0,2}(?:[,、;/&+和与及]|\band\b)?\s{0,2}"
    return re.compile(rf"(?<![A-Za-z])[{letters}](?:{between}[{letters}])*(?![A-Za-z'’])")


def same_letters(text: str, right: Sequence[int], options: int) -> float:
    """Return 1.0 where a text chooses exactly the right letters, no more and no fewer."""
    return float(letters_in(text, options) == frozenset(LETTERS[index] for index in right))


def number_in(text: str) -> Decimal | None:
    """Return the number a text answers with: the first after the last "####", else its last one.

    Commas within it are dropped, as are a full stop and a unit behind it.
    """
    marked, found = _numbers(text)
    chosen = found[:1] if marked else found[-1:]
    if not chosen:
        return None
    try:
        return Decimal(chosen[0].replace(",", ""))
    except InvalidOperation:
        return None


def _numbers(text: str) -> tuple[bool, list[str]]:
    """The numbers behind the last "####", where there are some, or else all; and which these are.

    The minus sign of typesetting (U+2212) is a minus.
    """
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-")
    _, mark, behind = text.rpartition(_MARKED)
    found = _NUMBER.findall(behind) if mark else []
    return bool(found), found or _NUMBER.findall(text)


def number_fault(answer: str) -> str | None:
    """Return why a right answer names no one number, or None where it does.

    Of "3/4" or "3 to 4" the last would count alone, and of "none" nothing, whatever is answered.
    """
    marked, found = _numbers(answer)
    if number_in(answer) is None:
        return "holds no number in digits"
    if len(found) > 1 and not marked:
        return f"holds {len(found)} numbers"
    return None


def same_number(text: str, answers: Sequence[str]) -> float:
    """Return 1.0 where a text's number equals that of one of the answers."""
    given = number_in(text)
    return float(given is not None and given in [number_in(answer) for answer in answers])


def exact_match(
    text: str,
    answers: Sequence[str],
    ignore_case: bool = False,
    ignore_punctuation: bool = False,
) -> float:
    """Return 1.0 where a text is one of the answers; the space around both does not count."""

    def plain(words: str) -> str:
        words = words.lower() if ignore_case else words
        if ignore_punctuation:
            words = "".join(each for each in words if not _is_punctuation(each))
        return words.strip()

    return float(plain(text) in [plain(answer) for answer in answers])


def _is_punctuation(letter: str) -> bool:
    return letter in string.punctuation or unicodedata.category(letter).startswith("P")


def pattern_match(text: str, answers: Sequence[str], pattern: str) -> float:
    """Return 1.0 where what `pattern` first finds in a text is one of the answers.

    What it finds is its first group that took part, or the whole where it has no group.
    """
    found = re.search(pattern, text)
    if found is None:
        return 0.0
    taken = [group for group in found.groups() if group is not None]
    return exact_match(taken[0] if taken else found[0], answers)


class MixedTokenizer:
    """The mixed tokenizer splits text for ROUGE: a Chinese character is a token, a word is one.

    Without Chinese, Japanese or Korean characters its tokens are those of `rouge_score` itself
    (lower case, letters and digits, no stemming).
    """

    def tokenize(self, text: str) -> list[str]:
        """Return the tokens of a text."""
        return _TOKEN.findall(text.lower())


def rouge(text: str, answers: Sequence[str]) -> dict[str, float]:
    """Return the F-measures rouge1, rouge2, rougeL and rougeLsum; of several answers the best."""
    scorer = _rouge_scorer()
    scored = [scorer.score(answer, text) for answer in answers]
    return {kind: max(float(each[kind].fmeasure) for each in scored) for kind in ROUGE}


@lru_cache
def _rouge_scorer() -> Any:
    import absl.logging
    from rouge_score import rouge_scorer  # pyright: ignore[reportMissingTypeStubs]

    # absl's handler closes whatever standard error was when it was imported, once it is no longer
    # that: Dagster closes all handlers at each run, and the stream may be somebody's who took it.
    handlers: Any = absl.logging
    handlers.get_absl_handler().python_handler.setStream(sys.__stderr__)
    return rouge_scorer.RougeScorer(list(ROUGE), use_stemmer=False, tokenizer=MixedTokenizer())


def score_text(
    text: str, answers: Sequence[str], metric: str, settings: Mapping[str, Any]
) -> dict[str, float]:
    """Return the values of one of WRITTEN_METRICS, by name; ROUGE gives its four at once.

    `settings` holds what the metric is set to: `pattern`, `ignore_case`, `ignore_punctuation`.
    """
    if metric in ROUGE:
        return rouge(text, answers)
    scorers: dict[str, Callable[[], float]] = {
        "exact_match": lambda: exact_match(
            text,
            answers,
            bool(settings.get("ignore_case")),
            bool(settings.get("ignore_punctuation")),
        ),
        "number": lambda: same_number(text, answers),
        "regex": lambda: pattern_match(text, answers, str(settings["pattern"])),
    }
    return {metric: scorers[metric]()}
