"""Names of lm-eval's tasks, read from lines of its files."""

from pathlib import Path

import lm_eval.tasks
import pytest

from eval_ops.suites.task_files import is_mentioned, task_files

FOLDER = Path(lm_eval.tasks.__file__).parent


@pytest.mark.parametrize(
    ("text", "tasks", "groups"),
    [
        ("task: 中药\n", ["中药"], []),
        ('"task": "quoted"  # and told of\n', ["quoted"], []),
        ("tag: t\ntask: 'one-of_two'\r\ngroup: g\n", ["one-of_two"], ["g"]),
        ("group: g\ntask:\n  - member\n  - task: inner\n", [], ["g"]),
        ("task: [a, b]\ngroup:\n", [], []),
        ("include: task.yaml\n# task: told\n", [], []),
    ],
)
def test_names_stand_on_lines_of_their_own(
    tmp_path: Path, text: str, tasks: list[str], groups: list[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.yaml").write_text(text, encoding="utf-8", newline="")
    (tmp_path / "in" / "a.py").write_text("task: of no YAML file\n")
    found = task_files(tmp_path)
    assert found.tasks == dict.fromkeys(tasks, tmp_path / "in")
    assert found.groups == set(groups)


def test_of_two_the_first_counts_and_what_stands_nowhere_is_told(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file.yaml").write_text("task: twice\ntag: many\n")
    assert task_files(tmp_path).tasks == {"twice": tmp_path / "a"}
    assert is_mentioned(tmp_path, "many")
    assert not is_mentioned(tmp_path, "none")


def test_folders_of_lm_eval_define_what_its_own_index_finds_there() -> None:
    """Forms that its files have: quoted keys, names unlike the file's, a group beside its tasks."""
    found = task_files(FOLDER)
    for folder in ("cmmlu", "gsm8k", "ceval", "mmlu"):
        root = FOLDER / folder
        theirs = lm_eval.tasks.TaskManager(include_defaults=False, include_path=root)
        ours = {name for name, place in found.tasks.items() if place.is_relative_to(root)}
        assert ours == {*theirs.all_subtasks}
        assert {*theirs.all_groups} <= found.groups
    assert len(found.tasks) > 10_000
