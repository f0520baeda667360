"""Metadata for people: whatever rows hold, Dagster takes the table."""

import json

import dagster as dg
import pytest

from assets.frame.display import LONGEST_CELL, MOST_ROWS, drawn, number, table


def columns(shown: dg.TableMetadataValue) -> dict[str, str]:
    return {column.name: column.type for column in shown.schema.columns}


def records(shown: dg.TableMetadataValue) -> list[dict[str, object]]:
    return [dict(record.data) for record in shown.records]


def test_rows_of_other_keys_are_one_table() -> None:
    shown = table([{"of": "a", "x": 1.0}, {"of": "b", "y": 2, "x": None}, {"of": "c", "y": 0.5}])
    assert columns(shown) == {"of": "string", "x": "float", "y": "float"}
    assert records(shown) == [
        {"of": "a", "x": 1.0, "y": ""},
        {"of": "b", "x": "", "y": 2},
        {"of": "c", "x": "", "y": 0.5},
    ]


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 1 << 80, [1], b"x", "\ud800", object]
)
def test_any_value_is_json_that_others_read(value: object) -> None:
    shown = table([{"value": value, 3: "x", "": "y", "\udfff": "z"}])
    text = dg.serialize_value(shown)
    json.loads(text, parse_constant=lambda name: pytest.fail(name))
    text.encode()
    assert len(columns(shown)) == 4


def test_tables_have_a_bound() -> None:
    shown = table([{"n": number, "text": "x" * 10_000} for number in range(MOST_ROWS + 7)])
    assert len(records(shown)) == MOST_ROWS + 1
    assert records(shown)[-1] == {"n": "… and 7 more rows", "text": ""}
    assert len(str(records(shown)[0]["text"])) == LONGEST_CELL + 1
    assert records(table([])) == []


def test_numbers_and_pictures_are_shown_or_said() -> None:
    assert (number(0.5), number(None), number(float("nan"))) == (0.5, "not finite", "not finite")
    context = dg.build_asset_context()

    def fail() -> bytes:
        raise ValueError("no axes")

    assert "could not be drawn (ValueError: no axes)" in drawn(context.log, "x", fail).md_str
    assert drawn(context.log, "x", lambda: b"png").md_str.startswith("![plot](data:image/png")
