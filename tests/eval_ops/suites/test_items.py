import json
from pathlib import Path

import pytest

from eval_ops.errors import ItemsError
from eval_ops.suites.items import read_items

GOOD = {"id": "a", "split": "test", "prompt": "1+1=", "choices": ["1", "2"], "answer": 1}


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_reads_items_and_ignores_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", GOOD, "", GOOD | {"id": "b", "prompt": "2+2="})
    first, second = read_items(path).items
    assert (first.id, first.prompt, first.choices, first.answer) == ("a", "1+1=", ("1", "2"), 1)
    assert second.id == "b"


def test_prompt_template_uses_other_keys_and_leaves_their_braces_alone(tmp_path: Path) -> None:
    row = GOOD | {"herb": "{人参}", "number": 3}
    path = write(tmp_path / "i.jsonl", row)
    (item,) = read_items(path, "{number}) {herb} {{?}}").items
    assert item.prompt == "3) {人参} {?}"


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    one = read_items(write(tmp_path / "1.jsonl", GOOD)).digest
    same = read_items(write(tmp_path / "2.jsonl", GOOD)).digest
    other = read_items(write(tmp_path / "3.jsonl", GOOD | {"answer": 0})).digest
    assert one == same != other


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ItemsError, match=r"no-such\.jsonl: the items file does not exist; make it"):
        read_items(tmp_path / "no-such.jsonl")


def test_every_faulty_line_is_named_at_once(tmp_path: Path) -> None:
    path = write(
        tmp_path / "i.jsonl",
        GOOD,
        "{not json",
        [1, 2],
        {"id": "x", "split": "tset", "prompt": "", "choices": ["1", "1"], "anwser": 1},
        GOOD | {"id": "y", "answer": 2},
        GOOD | {"id": "z", "choices": "12"},
    )
    with pytest.raises(ItemsError) as caught:
        read_items(path)
    faults = "\n".join(caught.value.faults)
    assert "line 2 is not valid JSON" in faults
    assert "line 3 is a list; it must be a JSON object" in faults
    assert "line 4: key 'answer' is missing. Is it misspelt as 'anwser'?" in faults
    assert (
        "line 4: split is 'tset'; it must be 'validation' or 'test'. Did you mean 'test'?" in faults
    )
    assert "line 4: prompt is ''; it must be text or a number, not empty" in faults
    assert "line 4: choices is ['1', '1']; it must hold two or more texts, all different" in faults
    assert "line 5: answer is 2; it must be the index of a choice, 0 to 1" in faults
    assert "line 6: choices is '12'; it must be a list of texts, none empty" in faults
    assert len(caught.value.faults) == 8


def test_template_key_that_a_row_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", GOOD)
    with pytest.raises(ItemsError, match=r"line 1: key 'question' is missing"):
        read_items(path, "{question}")


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{prompt.text}", "is not a plain key"),
        ("{prompt!r}", "is not a plain key"),
        ("{prompt", "expected '}' before end of string"),
        ("no key", "every question would be the same"),
    ],
)
def test_unusable_templates(tmp_path: Path, template: str, fault: str) -> None:
    with pytest.raises(ItemsError, match=fault):
        read_items(write(tmp_path / "i.jsonl", GOOD), template)


def test_repeated_ids_and_questions_in_both_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", GOOD, GOOD | {"split": "validation"})
    with pytest.raises(ItemsError, match=r"id 'a' is used by more than one item") as caught:
        read_items(path)
    assert "ask the same question in both splits" in str(caught.value)


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ItemsError, match=r"holds no item with split 'test'"):
        read_items(write(tmp_path / "i.jsonl", GOOD | {"split": "validation"}))
