"""What a written answer is worth: worked examples, and rouge_score and laws as oracles."""

import subprocess
import sys
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval_ops.suites.valuing.answers import (
    LETTERS,
    MixedTokenizer,
    exact_match,
    letters_in,
    number_fault,
    number_in,
    pattern_match,
    rouge,
    same_letters,
    same_number,
)


@pytest.mark.parametrize(
    ("text", "letters"),
    [
        ("ABD", "ABD"),
        ("答案：ABD。", "ABD"),
        ("根据题意，B 错误。答案是 A、C", "AC"),
        ("The answer is A and C, not B.", "AC"),
        ("Answer: a", ""),
        ("ＡＣ", "AC"),
        ("A,  C\n2. 下列", "AC"),
        ("Both cases", ""),
        ("Because of it, C", "C"),
        ("F", ""),
        ("", ""),
        ("B.\nC.", "B"),
    ],
)
def test_letters_of_a_text(text: str, letters: str) -> None:
    assert letters_in(text, 5) == set(letters)


@given(st.sets(st.sampled_from(LETTERS), min_size=1), st.sampled_from(["", ",", "、", " ", "和"]))
def test_letters_that_are_written_are_found(letters: set[str], between: str) -> None:
    text = f"答案：{between.join(sorted(letters))}。"
    assert letters_in(text, 10) == letters
    assert same_letters(text, [LETTERS.index(letter) for letter in letters], 10) == 1.0


def test_letters_are_right_only_as_a_whole() -> None:
    assert same_letters("ACD", [0, 2, 3], 5) == 1.0
    assert same_letters("AC", [0, 2, 3], 5) == 0.0
    assert same_letters("ABCD", [0, 2, 3], 5) == 0.0


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("She makes 9 * 2 = $<<9*2=18>>18 every day.\n#### 18", "18"),
        ("so it costs $1,234.50.", "1234.50"),
        ("#### 1,000\nThat is 3 more", "1000"),
        ("16-3", "3"),
        ("it is -3 degrees", "-3"),
        ("it is \u22123 degrees", "-3"),
        ("16\u22123", "3"),
        ("共有３５人", "35"),
        ("1e3", "1000"),
        ("none", None),
        ("#### none, but 4", "4"),
    ],
)
def test_number_of_a_text(text: str, number: str | None) -> None:
    assert number_in(text) == (None if number is None else Decimal(number))


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ("18", None),
        ("$1,234.50.", None),
        ("9 * 2 = 18\n#### 18", None),
        ("three", "holds no number in digits"),
        ("nan", "holds no number in digits"),
        ("3/4", "holds 2 numbers"),
        ("3 to 4 \n####", "holds 2 numbers"),
    ],
)
def test_a_right_answer_names_one_number(answer: str, fault: str | None) -> None:
    assert number_fault(answer) == fault


def test_numbers_are_equal_as_numbers() -> None:
    assert same_number("18.00", ["#### 18"]) == 1.0
    assert same_number("0.1", ["0.10"]) == 1.0
    assert same_number("nothing", ["nothing"]) == 0.0


def test_exact_match_and_patterns() -> None:
    assert exact_match(" 人参\n", ["黄芪", "人参"]) == 1.0
    assert exact_match("Yes.", ["yes"]) == 0.0
    assert exact_match("Yes.", ["yes"], ignore_case=True, ignore_punctuation=True) == 1.0
    assert exact_match("是。", ["是"], ignore_punctuation=True) == 1.0
    assert pattern_match("The capital is Rome, not Paris", ["Rome"], r"capital is (\w+)") == 1.0
    assert pattern_match("x=3 y=4", ["y=4"], r"z=(\d)|y=\d") == 1.0
    assert pattern_match("nothing", ["nothing"], r"\d+") == 0.0


def test_rouge_by_hand() -> None:
    # 黄芪补气 against 黄芪补气固表: 4 of 4 and 4 of 6 characters, so F = 2 · 1 · 2/3 / (5/3) = 0.8.
    assert rouge("黄芪补气", ["黄芪补气固表"])["rouge1"] == pytest.approx(0.8)
    assert rouge("气补芪黄", ["黄芪补气"])["rougeL"] == pytest.approx(0.25)
    assert rouge("the cat", ["a dog", "the cat sat"])["rouge1"] == pytest.approx(0.8)
    assert rouge("", ["a"])["rouge1"] == 0.0


@given(st.text(st.characters(max_codepoint=0x24F)), st.text(st.characters(max_codepoint=0x24F)))
def test_without_chinese_rouge_is_that_of_its_package(text: str, answer: str) -> None:
    from rouge_score import rouge_scorer

    names = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
    theirs = rouge_scorer.RougeScorer(names, use_stemmer=False).score(answer, text)
    assert rouge(text, [answer]) == {name: theirs[name].fmeasure for name in names}


def test_rouge_leaves_a_stream_that_somebody_took_open() -> None:
    """absl, which rouge_score imports, closes standard error as it was, with logging's handlers."""
    code = (
        "import io, logging, sys\n"
        "from eval_ops.suites.valuing.answers import rouge\n"
        "taken = sys.stderr = io.StringIO()\n"
        "rouge('a', ['a'])\n"
        "sys.stderr = io.StringIO()\n"
        "logging.shutdown()\n"
        "print(taken.closed)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_tokens_of_mixed_text() -> None:
    assert MixedTokenizer().tokenize("服用Vitamin C 3次") == ["服", "用", "vitamin", "c", "3", "次"]
