import json
from pathlib import Path

import pytest

from eval_ops.errors import ItemsError
from eval_ops.suites.reading.item_forms import ItemForm
from eval_ops.suites.reading.items import read_items
from merge_ops.checkpoints.files.plain_files import StrangersFiles

GOOD = {"id": "a", "split": "test", "prompt": "1+1=", "choices": ["1", "2"], "answer": 1}


def write(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_reads_items_and_ignores_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", GOOD, "", GOOD | {"id": "b", "prompt": "2+2="})
    first, second = read_items(path, StrangersFiles()).items
    assert (first.id, first.prompt, first.choices, first.answer) == ("a", "1+1=", ("1", "2"), 1)
    assert second.id == "b"


def test_prompt_template_uses_other_keys_and_leaves_their_braces_alone(tmp_path: Path) -> None:
    row = GOOD | {"herb": "{人参}", "number": 3}
    path = write(tmp_path / "i.jsonl", row)
    (item,) = read_items(path, StrangersFiles(), "{number}) {herb} {{?}}").items
    assert item.prompt == "3) {人参} {?}"


def test_digest_is_that_of_the_bytes(tmp_path: Path) -> None:
    one = read_items(write(tmp_path / "1.jsonl", GOOD), StrangersFiles()).digest
    same = read_items(write(tmp_path / "2.jsonl", GOOD), StrangersFiles()).digest
    other = read_items(write(tmp_path / "3.jsonl", GOOD | {"answer": 0}), StrangersFiles()).digest
    assert one == same != other


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ItemsError, match=r"no-such\.jsonl: the items file does not exist; make it"):
        read_items(tmp_path / "no-such.jsonl", StrangersFiles())


def test_what_is_no_text_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gbk.jsonl"
    path.write_bytes(b'{"id": "' + "中".encode("gbk"))
    with pytest.raises(ItemsError, match=r"gbk\.jsonl: is not UTF-8 text \(byte 8\)$"):
        read_items(path, StrangersFiles())
    with pytest.raises(ItemsError, match=r": cannot be read \(Is a directory\)$"):
        read_items(tmp_path, StrangersFiles())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"id": ""}, "id is ''; it must be text, not empty"),
        ({"id": 3}, "id is 3; it must be text, not empty"),
        ({"prompt": None}, "prompt is None; it must be text or a number, not empty"),
        ({"choices": ["1", ""]}, "choices is ['1', '']; it must be a list of texts, none empty"),
        ({"choices": [1, 2]}, "choices is [1, 2]; it must be a list of texts, none empty"),
        ({"choices": ["1"]}, "choices is ['1']; it must hold two or more texts, all different"),
        ({"answer": -1}, "answer is -1; it must be the index of a choice, 0 to 1"),
        ({"answer": 2}, "answer is 2; it must be the index of a choice, 0 to 1"),
        ({"answer": True}, "answer is True; it must be the index of a choice, 0 to 1"),
        ({"answer": "1"}, "answer is '1'; it must be the index of a choice, 0 to 1"),
        ({"split": "train"}, "split is 'train'; it must be 'validation' or 'test'."),
    ],
)
def test_one_fault_is_one_sentence(tmp_path: Path, changes: dict, fault: str) -> None:
    path = write(tmp_path / "i.jsonl", GOOD | changes, GOOD | {"id": "b", "prompt": "2+2="})
    with pytest.raises(ItemsError) as caught:
        read_items(path, StrangersFiles())
    assert caught.value.faults == (f"line 1: {fault}",)


def test_right_answers_of_numbers_hold_one_number_each(tmp_path: Path) -> None:
    rows = ({"id": f"i{n}", "split": "test", "prompt": f"{n}?"} for n in range(4))
    given = (4, "so #### 1,000", "three", ["1", "3/4"])
    written = [row | {"answers": answers} for row, answers in zip(rows, given, strict=True)]
    path = write(tmp_path / "i.jsonl", *written)
    with pytest.raises(ItemsError) as caught:
        read_items(path, StrangersFiles(), form=ItemForm("generation", numbers=True))
    way = "`metric: number` compares one: write it alone, or behind ####"
    assert caught.value.faults == (
        f"line 3: answers is 'three', which holds no number in digits; {way}",
        f"line 4: answers is '3/4', which holds 2 numbers; {way}",
    )


def test_the_edges_of_what_an_item_may_be(tmp_path: Path) -> None:
    rows = [
        GOOD | {"id": "0", "answer": 0},
        GOOD | {"id": "1", "prompt": 0, "choices": ["a", "b", "c"], "answer": 2},
        # The same question with another answer, or in the same split, is no leak.
        GOOD | {"id": "2", "split": "validation", "choices": ["1", "3"], "answer": 1},
        GOOD | {"id": "3", "answer": 0},
    ]
    assert [
        item.id for item in read_items(write(tmp_path / "i.jsonl", *rows), StrangersFiles()).items
    ] == [*"0123"]


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
        read_items(path, StrangersFiles())
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
        read_items(path, StrangersFiles(), "{question}")


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
        read_items(write(tmp_path / "i.jsonl", GOOD), StrangersFiles(), template)


def test_repeated_ids_and_questions_in_both_splits(tmp_path: Path) -> None:
    path = write(tmp_path / "i.jsonl", GOOD, GOOD | {"split": "validation"})
    with pytest.raises(ItemsError, match=r"id 'a' is used by more than one item") as caught:
        read_items(path, StrangersFiles())
    assert "ask the same question in both splits" in str(caught.value)


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(ItemsError, match=r"holds no item with split 'test'"):
        read_items(write(tmp_path / "i.jsonl", GOOD | {"split": "validation"}), StrangersFiles())
