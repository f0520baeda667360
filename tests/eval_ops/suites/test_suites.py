from collections.abc import Callable
from pathlib import Path

import pytest

from assets.work.suite_files import load_suite
from eval_ops.errors import EvalError, ItemsError, SuiteError

WriteItems = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path, write_items: WriteItems) -> Path:
    write_items(tmp_path / "herbs.jsonl", 8)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "suite.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_own_and_built_in_benchmarks(folder: Path) -> None:
    suite = load_suite(
        write(
            folder,
            """
            name: mixed
            seed: 3
            benchmarks:
              - {name: herbs, items: herbs.jsonl, title: 中药}
              - {name: medicine, task: cmmlu_anatomy, num_fewshot: 5, limit: 20,
                 validation_share: 0.25}
            """,
        )
    )
    herbs, medicine = suite.benchmarks
    assert (suite.name, suite.seed, len(suite.digest)) == ("mixed", 3, 64)
    assert (herbs.title, herbs.metric, len(herbs.items), herbs.task) == ("中药", "acc", 8, None)
    assert (medicine.task, medicine.num_fewshot, medicine.limit) == ("cmmlu_anatomy", 5, 20)
    assert (medicine.validation_share, medicine.items, medicine.metric) == (0.25, (), None)


def test_limit_keeps_the_first_items_of_each_split(folder: Path) -> None:
    path = write(folder, "name: s\nbenchmarks: [{name: h, items: herbs.jsonl, limit: 2}]")
    items = load_suite(path).benchmarks[0].items
    assert [item.id[-3:] for item in items] == ["000", "001", "002", "003"]
    assert [item.split for item in items] == ["validation", "test"] * 2


BASE = "name: s\nbenchmarks: [{name: h, items: herbs.jsonl}]"


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("name: s\ndescription: words\nbenchmarks: [{name: h, items: herbs.jsonl}]", True),
        ("name: s\nbenchmarks: [{name: h, items: ./herbs.jsonl, title: Herbs}]", True),
        ("name: s\nseed: 1\nbenchmarks: [{name: h, items: herbs.jsonl}]", False),
        ("name: s\nbenchmarks: [{name: h, items: herbs.jsonl, delimiter: ' '}]", False),
        ("name: s\nbenchmarks: [{name: h, items: herbs.jsonl, prompt: 'Q {prompt}'}]", False),
    ],
)
def test_digest_changes_with_what_may_change_a_score(folder: Path, text: str, same: bool) -> None:
    before = load_suite(write(folder, BASE)).digest
    assert (load_suite(write(folder, text)).digest == before) is same


def test_digest_covers_the_items_and_the_version_of_lm_eval(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(folder, BASE)
    before = load_suite(path).digest
    monkeypatch.setattr("importlib.metadata.version", lambda name: "9.9")
    assert load_suite(path).digest != before
    monkeypatch.undo()
    assert load_suite(path).digest == before
    with (folder / "herbs.jsonl").open("a") as file:
        file.write("\n")
    assert load_suite(path).digest != before


def test_digest_covers_data_files(folder: Path) -> None:
    path = write(
        folder,
        "name: s\nbenchmarks: [{name: m, task: cmmlu_anatomy, data_files: {test: t.csv}}]",
    )
    (folder / "t.csv").write_text("a")
    before = load_suite(path).digest
    (folder / "t.csv").write_text("b")
    assert load_suite(path).digest != before


def test_every_fault_is_named_at_once(folder: Path) -> None:
    path = write(
        folder,
        """
        nmae: s
        seed: -1
        benchmarks:
          - {name: a b, items: herbs.jsonl}
          - {name: c, items: herbs.jsonl, task: cmmlu}
          - {name: d, itms: herbs.jsonl}
          - {name: e, task: cmmlu, limit: 0, prompt: x}
          - {name: f, items: herbs.jsonl, num_fewshot: 5}
          - {name: g, items: herbs.jsonl, metric: f1}
          - {name: h, task: cmmlu, validation_share: 1}
        """,
    )
    with pytest.raises(SuiteError) as caught:
        load_suite(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: 10 faults\n")
    for fault in [
        "name is missing",
        "nmae is not a known key. Did you mean 'name'? Known: allow_code, benchmarks,",
        "seed is -1; it must be greater than or equal to 0",
        "benchmarks[0].name is 'a b'",
        "benchmarks[1]: give either `items`",
        "benchmarks[2].itms is not a known key. Did you mean 'items'?",
        "benchmarks[3].limit is 0; it must be greater than or equal to 1",
        "benchmarks[4]: num_fewshot cannot be given together with `items`",
        "benchmarks[5]: metric is 'f1'; for own items it must be 'acc'",
        "benchmarks[6].validation_share is 1",
    ]:
        assert fault in text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds nothing; it must hold a mapping"),
        ("- a", "holds a list; it must hold a mapping"),
        ("name: [", "is not valid YAML"),
        ("name: s\nname: t", "name is given twice, on line 1 and on line 2"),
        ("name: s\nbenchmarks: []", "benchmarks is \\[\\]; list should have at least 1 item"),
        (
            "name: s\nbenchmarks: [{name: h, task: a}, {name: h, task: b}]",
            "each needs a name of its own; twice: h",
        ),
        (
            "name: s\nbenchmarks: [{name: h, items: herbs.jsonl, prompt: '{a.b}'}]",
            "is not a plain key",
        ),
        ("name: s\nbenchmarks: [{name: h, task: x, data_files: {t: a.txt}}]", "must end in .csv"),
        ("name: s\nbenchmarks: [{name: h, task: x, data_files: {t: a.csv}}]", "cannot be read"),
    ],
)
def test_unusable_suites(folder: Path, text: str, message: str) -> None:
    with pytest.raises(EvalError, match=message):
        load_suite(write(folder, text))


def test_missing_suite_file(tmp_path: Path) -> None:
    with pytest.raises(SuiteError, match=r"nowhere\.yaml: the suite file does not exist"):
        load_suite(tmp_path / "nowhere.yaml")


def test_suite_files_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(b"name: \xff")
    with pytest.raises(
        SuiteError, match=r"the suite file cannot be read \(not UTF-8 text, byte 6\)"
    ):
        load_suite(path)
    with pytest.raises(SuiteError, match=r"the suite file cannot be read \(Is a directory\)"):
        load_suite(tmp_path)


def test_faults_of_several_items_files_come_together(folder: Path) -> None:
    (folder / "bad.jsonl").write_text('{"id": 1}\n')
    path = write(
        folder,
        "name: s\nbenchmarks: [{name: a, items: bad.jsonl}, {name: b, items: gone.jsonl}]",
    )
    with pytest.raises(ItemsError) as caught:
        load_suite(path)
    text = str(caught.value)
    assert "benchmark 'a'" in text
    assert "bad.jsonl: line 1: id is 1; it must be text, not empty" in text
    assert "benchmark 'b'" in text
    assert "gone.jsonl: the items file does not exist" in text
