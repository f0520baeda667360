"""YAML of strangers: what fits the bounds is read, one step beyond is refused in our words."""

import pytest

from merge_ops.checkpoints.files.bounded_yaml import (
    MAX_DEPTH,
    MAX_NODES,
    MAX_TEXT,
    DocumentError,
    load_documents,
)


def nested(depth: int) -> str:
    """A number in `depth` lists in brackets."""
    return "[" * depth + "1" + "]" * depth


def indented(depth: int) -> str:
    """A number below `depth` keys."""
    return "".join(" " * level + "a:\n" for level in range(depth)) + " " * depth + "1\n"


def depth_of(value: object) -> int:
    depth = 0
    while isinstance(value, list | dict):
        value = value[0] if isinstance(value, list) else value["a"]
        depth += 1
    return depth


def test_documents_come_in_order() -> None:
    assert load_documents("a: 1\n---\n- 2\n") == [{"a": 1}, [2]]
    assert load_documents("") == [None]
    assert load_documents("---\n---\n- 2\n") == [[2]]


@pytest.mark.parametrize("write", [nested, indented])
def test_depth_is_bounded(write) -> None:
    (value,) = load_documents(write(MAX_DEPTH - 1))
    assert depth_of(value) == MAX_DEPTH - 1
    for depth in (MAX_DEPTH, MAX_DEPTH + 2, 400):
        with pytest.raises(ValueError, match="is nested more than 50 deep, as no recipe is"):
            load_documents(write(depth))


def test_depth_by_aliases_is_depth() -> None:
    steps = "\n".join(f"- &a{n} [*a{n - 1}]" for n in range(1, MAX_DEPTH))
    with pytest.raises(ValueError, match="is nested more than 50 deep"):
        load_documents(f"- &a0 1\n{steps}\n- {{x: {nested(49)}}}")


def test_many_brackets_side_by_side_are_not_deep() -> None:
    assert load_documents("[" + ", ".join(["[1]"] * 300) + "]") == [[[1]] * 300]


def test_the_length_of_a_text_is_bounded() -> None:
    longest = "a" * MAX_TEXT
    assert load_documents(longest) == [longest]
    with pytest.raises(ValueError, match=rf"^is {MAX_TEXT + 1} characters long; at most"):
        load_documents(longest + "a")


def aliased(copies: int) -> str:
    """A list of 1 + 999 nodes, and a list of `copies` aliases of it."""
    return f"- &ten [{', '.join(['1'] * 999)}]\n- [{', '.join(['*ten'] * copies)}]\n"


def test_aliases_count_as_what_they_stand_for() -> None:
    # The outer list, the 1000 nodes, the second list, and 1000 for each alias of the first.
    fitting = (MAX_NODES - 2) // 1000 - 1
    ((first, second),) = load_documents(aliased(fitting))
    assert (len(first), len(second)) == (999, fitting)
    with pytest.raises(ValueError, match=r"stands for more than 100000 values, from line \d on"):
        load_documents(aliased(fitting + 1))


def test_ten_lines_that_stand_for_a_thousand_million_values() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    with pytest.raises(ValueError, match="stands for more than 100000 values"):
        load_documents("\n".join(lines))


def test_values_count_in_each_document_by_itself() -> None:
    text = aliased((MAX_NODES - 2) // 1000 - 1)
    assert len(load_documents(f"{text}---\n{text}")) == 2


def test_what_holds_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^holds itself, by an alias, at line 2; write"):
        load_documents("a: 1\nb: &b [1, *b]")
    assert load_documents("a: &a [1]\nb: [*a, *a]") == [{"a": [1], "b": [[1], [1]]}]


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\t- a", "*nothing", "a: !!python/name:os"])
def test_what_is_no_yaml(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is not valid YAML: "):
        load_documents(text)


@pytest.mark.parametrize("value", ["2026-13-01", "!!int x", "!!bool x", "!!float x"])
def test_values_that_cannot_be_read(value: str) -> None:
    with pytest.raises(ValueError, match=r"holds a value that cannot be read \(.*\); put it in"):
        load_documents(f"a: {value}")


@pytest.mark.parametrize(("value", "base"), [("1:30", 60), ("190:20:30.5", 60), ("017", 8)])
def test_numbers_in_a_base_that_nobody_means(value: str, base: int) -> None:
    with pytest.raises(DocumentError, match=f"a is {value} on line 1, .* number in base {base}"):
        load_documents(f"a: {value}")
    assert load_documents(f"a: '{value}'\nb: 0\nc: 0.5\nd: 0x1f") == [
        {"a": value, "b": 0, "c": 0.5, "d": 31}
    ]


def test_half_a_character_is_refused() -> None:
    with pytest.raises(ValueError, match=r"holds half a character \(a lone surrogate\) at line 2"):
        load_documents('a: 1\nb: "\\ud800"')
