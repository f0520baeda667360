"""docs/decisions.md: every entry has a theme and a status, and the index says the same."""

import re

import pytest

from docs.decisions_index import PAGE, UNSORTED, entries, renewed

OUTDATED = "the index of docs/decisions.md is not what its entries say; run `make docs`"


def test_the_index_is_up_to_date():
    text = PAGE.read_text(encoding="utf-8")
    assert text == renewed(text), OUTDATED


def test_every_entry_has_theme_and_status():
    text = PAGE.read_text(encoding="utf-8")
    unsorted = [each.heading for each in entries(text) if each.theme == UNSORTED]
    assert unsorted == [], "write a line `*Theme · status*` under the heading, then `make docs`"
    status = r"holds|negative result|(partly )?superseded by \[.+\]\(#[^)]+\)(: .+)?"
    odd = [each for each in entries(text) if not re.fullmatch(status, each.status)]
    assert odd == []


def test_an_entry_without_a_note_is_listed_and_an_unknown_theme_refused():
    bare = "<!-- index: written by `make docs` -->\n<!-- end of index -->\n\n## 2026 · A\n\nText.\n"
    assert f"**{UNSORTED}**\n\n- [A](#2026--a)\n" in renewed(bare)
    noted = bare.replace("Text.", "*S3 · superseded by [B](#b)*\n\nText.")
    assert "**S3**\n\n- [A](#2026--a): superseded by [B](#b)\n" in renewed(noted)
    with pytest.raises(ValueError, match="'S4' is no theme; choose of The house"):
        renewed(bare.replace("Text.", "*S4 · holds*\n\nText."))
