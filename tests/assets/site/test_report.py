"""The report is one page in one file: strangers' words are words, and nothing is asked for."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from assets.site.collecting import collect_view
from assets.site.report import ReportOptions, changes, drawn, report_html, report_json
from assets.site.view import CatalogView
from tests.assets.site.made_up_catalog import FAILURES, HOSTILE, champion_of, facts_of, filled
from tests.assets.work.made_up_store import ScoredStore


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoredStore, CatalogView]:
    scored = filled(tmp_path_factory.mktemp("report"), HOSTILE, items=20)
    return scored, collect_view(scored.store, facts_of(scored, HOSTILE), FAILURES)


class Tags(HTMLParser):
    """The tags and attributes of a page, as a browser finds them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def test_the_page_has_champions_scores_and_changes(hostile: tuple[ScoredStore, CatalogView]):
    scored, view = hostile
    page = report_html(view, ReportOptions())
    assert champion_of(scored)[:12] in page
    assert "中药合并" in page
    assert "significantly above" in page
    assert "the source does not answer" in page
    assert "Scores from elsewhere" in page
    assert "70.0 <small>60.4–78.1</small>" in page
    assert report_html(view, ReportOptions()) == page
    assert "排行榜" in report_html(view, ReportOptions("zh"))


@pytest.mark.parametrize("language", ["en", "zh"])
def test_nothing_of_it_runs_or_is_asked_for(
    hostile: tuple[ScoredStore, CatalogView], language: str
):
    found = Tags(report_html(hostile[1], ReportOptions(language)))
    assert not {"script", "img", "iframe", "textarea", "a", "object"} & set(found.tags)
    names = {name for name, _ in found.attributes}
    assert not [name for name in names if name.startswith("on") or name in ("src", "style")]
    links = [value for name, value in found.attributes if name in ("href", "src")]
    assert links == []
    policy = dict(found.attributes)["content"]
    assert policy is not None
    assert any("default-src 'none'" in (value or "") for _, value in found.attributes)


def test_the_same_as_plain_data(hostile: tuple[ScoredStore, CatalogView]):
    scored, view = hostile
    told = report_json(view, ReportOptions(top=2))
    (champion,) = [each for each in told["champions"] if each["recipe"] == "ties"]
    assert champion["champion"] == champion_of(scored)
    assert champion["score"]["mean"] == pytest.approx(0.9)
    assert len(told["suites"][0]["rows"]) == 2
    assert [each["n"] for each in told["imported"]] == [9, 100]
    assert report_json(view, ReportOptions(suite="one"))["imported"] == []
    assert {each["kind"] for each in told["changes"]} >= {"promotion", "failure", "model"}


def test_changes_since_a_day_and_what_holds_now(hostile: tuple[ScoredStore, CatalogView]):
    _, view = hostile
    late = changes(view, ReportOptions(since="2026-11-20"))
    assert "the source does not answer" not in [each.because for each in late]
    assert [each for each in late if not each.at]  # broken files have no time


def test_intervals_lie_within_the_picture(hostile: tuple[ScoredStore, CatalogView]):
    picture = drawn(hostile[1], "one", ReportOptions())
    assert len(picture["rows"]) == 4
    for row in picture["rows"]:
        assert 290 <= row["from"] <= row["x"] <= row["to"] <= picture["width"] - 60
    assert drawn(CatalogView("empty"), "one", ReportOptions())["rows"] == []


def test_an_empty_catalog_has_a_report_too(tmp_path: Path):
    page = report_html(CatalogView(""), ReportOptions())
    assert "Nothing yet" in page
    assert not re.search(r"https?://", page)
