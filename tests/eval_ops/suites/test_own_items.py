"""Own items of every kind: their files, how they are asked, what comes out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assets.work.suite_files import load_suite
from eval_ops.errors import ItemsError, SuiteError
from eval_ops.suites import Evaluator
from eval_ops.suites.item_tasks import configuration, rows
from eval_ops.suites.reading.items import Item, divide

EXAM: list[dict[str, Any]] = [
    {"id": "1", "split": "validation", "stem": "木生", "A": "火", "B": "土", "C": "", "key": "A"},
    {"id": "2", "split": "test", "stem": "火生", "A": "金", "B": "土", "C": "木", "key": "BC"},
]


def write_jsonl(path: Path, items: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")


def write_csv(path: Path, items: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        lines = csv.DictWriter(file, list(items[0]))
        lines.writeheader()
        lines.writerows(items)


def write_parquet(path: Path, items: list[dict[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(items), path)


WRITERS = {".jsonl": write_jsonl, ".csv": write_csv, ".parquet": write_parquet}


def suite_of(folder: Path, *benchmarks: dict[str, Any], **more: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(json.dumps({"name": "own", "benchmarks": list(benchmarks), **more}))
    return path


@pytest.mark.parametrize("suffix", WRITERS)
def test_files_of_three_forms_give_the_same_items(tmp_path: Path, suffix: str) -> None:
    WRITERS[suffix](tmp_path / f"exam{suffix}", EXAM)
    path = suite_of(
        tmp_path,
        {
            "name": "exam",
            "items": f"exam{suffix}",
            "prompt": "{stem}\n{lettered}\n答案：",
            "columns": {"choices": ["A", "B", "C"], "answer": "key"},
            "asked": "letters",
            "several": True,
        },
    )
    one, two = load_suite(path).benchmarks[0].items
    assert (one.prompt, one.choices, one.right) == (
        "木生\nA. 火\nB. 土\n答案：",
        ("火", "土"),
        (0,),
    )
    assert (two.prompt, two.right) == ("火生\nA. 金\nB. 土\nC. 木\n答案：", (1, 2))


@pytest.mark.parametrize(
    "options",
    [
        {"A": "火", "B": "土"},
        ["A.火", "B．土"],
        "A. 火 B. 土",
        "(A) 火\n(B) 土",
        ["火", "土"],
        "['火', '土']",
    ],
)
def test_options_are_read_as_exam_sets_write_them(tmp_path: Path, options: object) -> None:
    item = {"id": 7, "split": "test", "prompt": "木生", "options": options, "answer": "B"}
    write_jsonl(tmp_path / "i.jsonl", [item])
    entry = {"name": "e", "items": "i.jsonl", "asked": "letters"}
    columns = {"columns": {"choices": "options", "id": "id"}}
    (read,) = load_suite(suite_of(tmp_path, entry | columns)).benchmarks[0].items
    assert (read.id, read.choices, read.answer) == ("7", ("火", "土"), 1)


def test_choices_of_one_right_letter_are_asked_by_likelihood(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "i.jsonl", [{"id": "1", "split": "test", "prompt": "?",
                                        "choices": ["火", "土"], "answer": "B"}])  # fmt: skip
    entry = {"name": "e", "items": "i.jsonl", "asked": "letters", "delimiter": " "}
    benchmark = load_suite(suite_of(tmp_path, entry)).benchmarks[0]
    assert configuration(benchmark)["output_type"] == "multiple_choice"
    assert rows(benchmark)[0]["choices"] == ["A", "B"]


def test_several_right_choices_need_to_be_announced(tmp_path: Path) -> None:
    row = {"id": "1", "split": "test", "prompt": "?", "choices": ["a", "b"], "answer": [0, 1]}
    write_jsonl(tmp_path / "i.jsonl", [row])
    path = suite_of(tmp_path, {"name": "e", "items": "i.jsonl", "asked": "letters"})
    with pytest.raises(ItemsError, match=r"several right choices; set `several: true`"):
        load_suite(path)
    path = suite_of(tmp_path, {"name": "e", "items": "i.jsonl", "several": True})
    benchmark = load_suite(path).benchmarks[0]
    assert (benchmark.metric, benchmark.items[0].right) == ("letters", (0, 1))
    scored = configuration(benchmark)["process_results"](rows(benchmark)[0], ["答案：AB"])
    assert scored == {"letters": 1.0}
    write_jsonl(tmp_path / "i.jsonl", [row | {"answer": [0, 2]}])
    with pytest.raises(ItemsError, match=r"answer is \[0, 2\]; .* 0 to 1, or a list of the right"):
        load_suite(path)


def test_more_than_ten_choices_have_no_letters(tmp_path: Path) -> None:
    row = {"id": "1", "split": "test", "prompt": "?", "choices": [*"abcdefghijk"], "answer": 0}
    write_jsonl(tmp_path / "i.jsonl", [row])
    with pytest.raises(ItemsError, match=r"holds 11 texts; letters are A to J"):
        load_suite(suite_of(tmp_path, {"name": "e", "items": "i.jsonl", "asked": "letters"}))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        ({"kind": "generation"}, "metric is None; for generation it must be 'exact_match' or"),
        ({"kind": "generation", "metric": "regex"}, "metric: regex and `pattern` belong together"),
        ({"max_new_tokens": 5}, "max_new_tokens need `kind: generation`"),
        ({"several": True, "metric": "acc"}, "metric is 'acc'; for own items it must be 'letters'"),
        ({"columns": {"question": "q"}}, "columns: 'question' is none of id, split, choices"),
        ({"columns": {"id": ["a", "b"]}}, "only choices may be a list of columns"),
        (
            {"kind": "generation", "metric": "regex", "pattern": "("},
            r"pattern is '\(', no regular expression",
        ),
        ({"kind": "generation", "metric": "judge"}, r"graded by a judge and there is none; add"),
        (
            {"kind": "generation", "metric": "code", "tests": "tests"},
            "runs code that models wrote. .* says `allow_code: true`",
        ),
        ({"source": "hub"}, "source 'hub' is not in `sources`"),
    ],
)
def test_faults_of_kinds(tmp_path: Path, entry: dict[str, Any], fault: str) -> None:
    with pytest.raises(SuiteError, match=fault):
        load_suite(suite_of(tmp_path, {"name": "e", "items": "i.jsonl"} | entry))


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("i.csv", "id,id\n1,2\n", "has the column 'id' twice"),
        ("i.csv", "", "holds no header"),
        ("i.csv", "id,split\n1\n", "row 1 has 1 fields where the header names 2"),
        ("i.csv", 'id,split\n"1\n', "is not valid CSV"),
        ("i.parquet", "PAR1", "is not a Parquet file that can be read"),
    ],
)
def test_unreadable_tables(tmp_path: Path, name: str, content: str, fault: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ItemsError, match=fault):
        load_suite(suite_of(tmp_path, {"name": "e", "items": name}))


def test_items_of_a_passage_stay_in_one_split() -> None:
    items = [Item(f"{n}", "test", f"q{n}", ("a", "b"), 0, group=f"g{n // 4}") for n in range(40)]
    divided = divide(items, 0.5, 0, "b")
    by_group = {item.group: {i.split for i in divided if i.group == item.group} for item in items}
    assert all(len(splits) == 1 for splits in by_group.values())
    assert sum(item.split == "validation" for item in divided) == 20
    assert {item.split for item in divide(items, 0, 0, "b")} == {"test"}
    assert divide(items, 0.5, 0, "b") == divided != divide(items, 0.5, 1, "b")


GENERATED = [
    {"id": f"{n}", "split": ("validation", "test")[n % 2], "prompt": f"{n} ginseng warms",
     "answers": ["qi", "the lungs"], "group": f"p{n // 2}"}
    for n in range(6)
]  # fmt: skip


@pytest.fixture(scope="module")
def scored(checkpoints: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("generated")
    write_jsonl(folder / "i.jsonl", GENERATED)
    entry = {"items": "i.jsonl", "kind": "generation", "max_new_tokens": 12, "stop": [" qi"]}
    write_jsonl(
        folder / "c.jsonl",
        [{**row, "choices": ["a", "b"], "answer": [0]} for row in GENERATED],
    )
    path = suite_of(
        folder,
        entry | {"name": "rouge", "metric": "rouge1"},
        entry | {"name": "same", "metric": "exact_match"},
        {"name": "letters", "items": "c.jsonl", "several": True, "max_new_tokens": 4},
    )
    return Evaluator(load_suite(path), batch_size=4).score(checkpoints[0])


def test_what_was_written_is_kept_with_its_length_and_group(
    scored: Any, checkpoints: list[Path]
) -> None:
    from transformers import AutoTokenizer

    samples = [sample for sample in scored.samples if sample.benchmark == "rouge"]
    assert [sample.item for sample in samples] == [*"012345"]
    assert [sample.group for sample in samples] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert all(sample.text and " qi" not in sample.text for sample in samples)
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoints[0])
    assert all(sample.length == len(tokenizer.encode(sample.text)) > 0 for sample in samples)
    score = scored.score("rouge", "test")
    lengths = [sample.length for sample in samples if sample.split == "test"]
    assert (score.metric, score.n) == ("rouge1", 3)
    assert score.mean_length == pytest.approx(sum(lengths) / 3)
    assert scored.score("letters").metric == "letters"


def test_written_answers_are_those_of_the_model_itself(
    scored: Any, checkpoints: list[Path]
) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from eval_ops.suites.valuing.answers import rouge

    model: Any = AutoModelForCausalLM.from_pretrained(checkpoints[0], dtype="auto").eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoints[0])
    for sample in scored.samples:
        if sample.benchmark == "rouge":
            prompt = tokenizer(f"{sample.item} ginseng warms", return_tensors="pt")
            with torch.no_grad():
                out = model.generate(**prompt, max_new_tokens=12, do_sample=False)
            text = tokenizer.decode(
                out[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True
            )
            assert sample.text == text.split(" qi")[0]
            assert sample.value == rouge(sample.text, ["qi", "the lungs"])["rouge1"]


def test_a_chat_template_is_put_around_the_prompt(
    write_checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "chat", 5)
    write_jsonl(tmp_path / "i.jsonl", GENERATED[:2])
    entry = {"name": "e", "items": "i.jsonl", "kind": "generation", "metric": "exact_match",
             "max_new_tokens": 3}  # fmt: skip
    plain = load_suite(suite_of(tmp_path, entry))
    chat = load_suite(suite_of(tmp_path, entry | {"chat_template": True}))
    assert plain.digest != chat.digest
    with pytest.raises(Exception, match=r"chat_template is not set"):
        Evaluator(chat).score(folder)
    template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": template}))
    asked: list[str] = []
    evaluator = Evaluator(chat)
    evaluator.score(folder)
    task = evaluator._tasks["e"]["items"]
    asked = [instance.args[0] for instance in task.instances]
    assert asked == [f"<user>{n} ginseng warms<assistant>" for n in range(2)]
