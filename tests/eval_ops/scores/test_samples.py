"""Files of samples: what they answer is decoded once for all that answer the same items."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval_ops.errors import ScoresError
from eval_ops.scores import samples as module
from eval_ops.scores.samples import (
    Answers,
    Sample,
    answers_from_parquet,
    answers_of,
    samples_from_parquet,
    samples_to_parquet,
)

NAMES = st.text("ab题", max_size=3)
ROWS = st.lists(
    st.tuples(NAMES, st.sampled_from(("test", "validation")), NAMES, NAMES), max_size=12
)


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_seen", [])


def made(rows: Sequence[tuple[str, str, str, str]], first: float = 0.0) -> tuple[Sample, ...]:
    return tuple(
        Sample(benchmark, split, item, first + number, group=group)
        for number, (benchmark, split, item, group) in enumerate(rows)
    )


def told(answers: Answers) -> object:
    tables = {part: answers.table(*part) for part in answers.items.of}
    return tables, answers.items.groups, answers.items.counts


def expected(samples: Sequence[Sample]) -> object:
    """The same, row by row."""
    tables: dict[tuple[str, str], dict[str, float]] = {}
    groups: dict[tuple[str, str], dict[str, str]] = {}
    for each in samples:
        tables.setdefault((each.benchmark, each.split), {})[each.item] = each.value
        if each.group:
            groups.setdefault((each.benchmark, each.split), {})[each.item] = each.group
    return tables, groups, {part: len(items) for part, items in tables.items()}


@settings(max_examples=30)
@given(ROWS, ROWS)
def test_answers_are_those_of_the_samples(
    rows: list[tuple[str, str, str, str]], others: list[tuple[str, str, str, str]]
) -> None:
    for each in (made(rows), made(rows, 0.5), made(others), made(rows)):
        assert told(answers_from_parquet(samples_to_parquet(each))) == expected(each)
        assert told(answers_of(each)) == expected(each)


def test_files_that_answer_the_same_items_share_them() -> None:
    rows = [("b", split, f"{split}{n}", "") for split in ("validation", "test") for n in range(9)]
    first = answers_from_parquet(samples_to_parquet(made(rows)))
    again = answers_from_parquet(samples_to_parquet(made(rows, 0.25)))
    assert again.items is first.items
    assert again.table("b", "test")["test0"] == first.table("b", "test")["test0"] + 0.25
    for place, name in enumerate(("other", "test", "other", "passage")):
        changed = [*rows]
        changed[0] = (*rows[0][:place], name, *rows[0][place + 1 :])  # type: ignore[assignment]
        samples = made(changed)
        found = answers_from_parquet(samples_to_parquet(samples))
        assert found.items is not first.items
        assert told(found) == expected(samples)
    turned = made(rows[::-1])
    assert told(answers_from_parquet(samples_to_parquet(turned))) == expected(turned)


def outcome(data: bytes) -> str:
    try:
        return repr(told(answers_from_parquet(data)))
    except ScoresError as error:
        return str(error).partition(":")[0]


def test_a_changed_byte_is_read_as_if_nothing_had_been_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Sharing items never hides what a file says: neither in its columns nor in its footer."""
    sound = samples_to_parquet(made([("b", "test", f"item-{n}", f"g{n // 2}") for n in range(20)]))
    first = answers_from_parquet(sound)
    seen = list(module._seen)  # pyright: ignore[reportPrivateUsage]
    assert len(seen) == 1
    for place in range(4, len(sound) - 8, 23):
        data = bytearray(sound)
        data[place] ^= 1 << place % 8
        monkeypatch.setattr(module, "_seen", [])
        cold = outcome(bytes(data))
        monkeypatch.setattr(module, "_seen", [*seen])
        assert outcome(bytes(data)) == cold, f"byte {place} of {len(sound)}"
    assert told(first) == expected(samples_from_parquet(sound))


def test_numbers_of_a_column_in_parts() -> None:
    """Several chunks, one of them a part of another array, and none at all."""
    whole = pa.array([0.0, 1.0, 2.0, 3.0])
    column = pa.chunked_array([whole.slice(1, 2), pa.array([], pa.float64()), whole[3:]])
    assert module._floats(column).tolist() == [1.0, 2.0, 3.0]  # pyright: ignore[reportPrivateUsage]
    assert module._floats(column.slice(0, 0)).tolist() == []  # pyright: ignore[reportPrivateUsage]


def test_a_file_of_another_hand_is_read_too() -> None:
    samples = made([("b", "test", f"{n}", "") for n in range(6)])
    table = pq.read_table(pa.BufferReader(samples_to_parquet(samples)))
    several: list[dict[str, Any]] = [
        {"row_group_size": 2}, {"compression": "none"}, {"use_dictionary": False}
    ]  # fmt: skip
    for options in several:
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        assert told(answers_from_parquet(sink.getvalue().to_pybytes())) == expected(samples)


def test_an_item_without_a_value_is_told() -> None:
    table = pq.read_table(pa.BufferReader(samples_to_parquet(made([("b", "test", "1", "")]))))
    none = table.set_column(3, "value", pa.array([None], pa.float64()))
    sink = pa.BufferOutputStream()
    pq.write_table(none, sink)
    with pytest.raises(ScoresError, match="the samples cannot be read: 1 have no value"):
        answers_from_parquet(sink.getvalue().to_pybytes())
