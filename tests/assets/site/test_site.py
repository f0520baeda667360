"""The site's view, its data files, and when it is rendered."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from assets.site.collecting import collect_view
from assets.site.data_files import packed, unpacked
from assets.site.facts import CatalogFacts
from assets.site.pages import PAGES, POLICY, place, render, site_files, static_files, weeks
from assets.site.publishing import CATALOG_SITE, SITE, earlier_site, publish_site, site_digest
from assets.site.sections.changes import Failure
from assets.site.texts import LANGUAGES, TEXTS
from assets.site.view import CatalogView, Change
from tests.assets.site.made_up_catalog import (
    FAILURES,
    HOSTILE,
    champion_of,
    facts_of,
    filled,
)
from tests.assets.work.made_up_store import ScoredStore

SITE_FOLDER = Path(render.__code__.co_filename).parent


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> ScoredStore:
    return filled(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="module")
def facts(scored: ScoredStore) -> CatalogFacts:
    return facts_of(scored)


@pytest.fixture(scope="module")
def view(scored: ScoredStore, facts: CatalogFacts) -> CatalogView:
    return collect_view(scored.store, facts, FAILURES)


def test_everything_that_the_catalog_has_is_in_the_view(
    scored: ScoredStore, view: CatalogView
) -> None:
    assert view.problems == ()
    assert [each.name for each in view.models] == ["base", "e1", "e2"]
    by_name = {each.name: each for each in view.models}
    assert by_name["e1"].card.endswith("# A card \n")
    assert by_name["e1"].layers == ((0, 3.0), (1, 1.5), (None, 0.1))
    test = by_name["base"].scores["one"]
    assert test.cells[0] is not None
    assert (test.cells[0][0], test.cells[0][3]) == (0.3, 40)
    assert [each.label for each in view.checkpoints] == [f"ties e1+e2 x={n}" for n in range(3)]
    assert [each.test.mean[0] for each in view.checkpoints if each.test and each.test.mean] == [
        0.55,
        0.9,
        0.6,
    ]
    (recipe,) = view.recipes
    assert recipe.champion is not None
    assert recipe.champion.digest == champion_of(scored)
    assert "significantly above" in recipe.champion.because
    whole, by_layer = ((1.0, 0.25), (0.25, 1.0)), ((1.0, -0.5), (-0.5, 1.0))
    assert recipe.cosines == ((("e1", "e2"), whole, ((0, whole), (None, by_layer))),)
    assert (recipe.title, recipe.description) == ("中药合并", "two experts")
    rows = view.boards["one"]
    assert [row.champion for row in rows] == [True, False, False, False]
    assert rows[0].against["base"][0] == "better"
    assert [
        (each["model"], each["benchmark"], each["score"], each["n"]) for each in view.imported
    ] == [
        ("other", "C-Eval", 1.0, 9),
        ("e1", "C-Eval", 0.7, 100),
    ]
    assert all(each["low"] < each["high"] for each in view.imported)


def test_answers_are_of_rows_first_and_of_other_points_then(view: CatalogView) -> None:
    (answers,) = view.answers
    labels = [label for label, _ in answers.models]
    assert labels == ["ties e1+e2 x=1", "e1", "e2", "base", "ties e1+e2 x=2", "ties e1+e2 x=0"]
    assert [sum(row) for row in answers.values] == [36, 20, 18, 12, 24, 22]
    assert answers.items[0][:3] == ("test0", "question 0 test", ("red", "blue"))


def test_a_folder_of_this_machine_is_not_told(view: CatalogView) -> None:
    sources = {each.name: each.source for each in view.models}
    assert sources["base"] == "…/base"
    assert sources["e1"] == "hf://org/e1"


def test_changes_are_told_by_week_and_say_why(view: CatalogView) -> None:
    kinds = [each.kind for each in view.changes]
    assert {"promotion", "model", "merges", "failure"} == set(kinds)
    assert view.changes[-1].page == ("model", "e1")
    updates = [each for each in view.changes if each.kind == "model" and each.subject == "e1"]
    assert "→" in updates[0].what
    groups = weeks(view.changes)
    assert [monday for monday, _ in groups][-2:] == ["2026-11-23", "2026-11-16"] or groups
    timeless = Change("", "broken", "recipe x", (), "", "wrong", "")
    assert weeks((*view.changes, timeless))[0] == ("", [timeless])


def test_the_strictest_input_decides_the_licence(view: CatalogView) -> None:
    merge = next(each for each in view.licences if each.kind == "merge")
    assert (merge.subject, merge.licence, merge.deciding) == ("ties e1+e2", "cc-by-nc-4.0", ("e1",))
    assert any("no commercial use" in duty for duty in merge.duties)


def test_nothing_changed_writes_nothing_and_a_change_is_another_site(
    scored: ScoredStore, facts: CatalogFacts
) -> None:
    first = publish_site(scored.store, facts, FAILURES)
    again = publish_site(scored.store, facts, FAILURES)
    assert (first.memoized, again.memoized) == (False, True)
    assert again.artifact.digest == first.artifact.digest
    assert len(scored.store.digests(SITE)) == 1
    ref = scored.store.ref(CATALOG_SITE)
    assert ref is not None
    assert len(ref.history) == 1
    assert Path(first.index).read_text("utf-8").startswith("<!doctype html>")
    other = publish_site(scored.store, facts, FAILURES[:1])
    assert not other.memoized
    assert other.artifact.digest != first.artifact.digest


def test_what_the_site_before_has_read_gives_the_same_site(
    scored: ScoredStore, facts: CatalogFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish_site(scored.store, facts, FAILURES)
    before = earlier_site(scored.store)
    assert len(before.models) == 3
    assert len(before.seen.known) == 3
    fresh = site_digest(site_files(collect_view(scored.store, facts, FAILURES)))
    monkeypatch.setattr("assets.site.sections.scores_seen.READERS", 1)
    with_before = site_digest(site_files(collect_view(scored.store, facts, FAILURES, before)))
    assert with_before == fresh


def test_benchmarks_in_another_order_are_read_again(scored: ScoredStore) -> None:
    before = earlier_site(scored.store)
    before.order["one"] = ("other", "b")
    known = before.scores_in({"one": collect_view(scored.store, facts_of(scored)).suites[0]})
    assert known.known == {}


def test_damage_is_told_and_the_rest_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored = filled(tmp_path, items=20)
    facts = facts_of(scored)
    ref = scored.store.ref("ties/scores", "x=0|e1+e2")
    assert ref is not None
    artifact = scored.store.get("scores", ref.digest)
    (artifact.folder(checked=False) / "scores.json").write_text("{")
    monkeypatch.setattr("assets.work.scoring.scoring._opened", {})  # what the ranking has read
    site = publish_site(scored.store, facts)
    told = [f"scores {ref.digest[:12]}"]
    assert [name for name, _ in site.view.problems] == told
    assert [each.test is None for each in site.view.checkpoints] == [True, False, False]
    html = Path(site.index).read_text("utf-8")
    assert "has other bytes than were published" in html


def test_what_is_withdrawn_is_marked_everywhere(tmp_path: Path) -> None:
    scored = filled(tmp_path, items=20)
    scored.store.marks.withdraw(scored.digests["e1"], f"bad data {HOSTILE}", called="e1")
    view = collect_view(scored.store, facts_of(scored))
    marked = {each.name for each in view.models if each.withdrawn}
    assert marked == {"e1"}
    assert [row.label for row in view.boards["one"] if row.withdrawn] == ["e1"]
    (change,) = (each for each in view.changes if each.kind == "withdrawal")
    assert change.page == ("model", "e1")
    assert change.because.startswith("bad data")


def test_an_empty_store_gives_a_site_too(tmp_path: Path) -> None:
    scored = ScoredStore(tmp_path, items=4)
    site = publish_site(scored.store, CatalogFacts("", {}, {}))
    assert not site.view.suites
    assert "Nothing yet" in (Path(site.index).parent / "models.html").read_text("utf-8")


@pytest.mark.parametrize("text", [HOSTILE, "\\", "'", "\\'", "\ud800", "a\u2029b\nc", "\\u2028"])
def test_data_files_hold_any_text(text: str) -> None:
    path, data = packed("x", {"__proto__": text})
    assert path == "data/x.js"
    body = data.decode()[len("Ronghe.take('x','") : -len("');\n")]
    assert not re.search("(?<!\\\\)(?:\\\\\\\\)*'|[<\n\u2028\u2029]", body)
    assert unpacked(data) == {"__proto__": text}


def test_other_files_are_no_data_of_a_site() -> None:
    with pytest.raises(ValueError, match="no data of a catalog site"):
        unpacked(b"alert(1)")


def test_no_page_asks_anybody_for_anything(view: CatalogView) -> None:
    for path, data in site_files(view):
        text = data.decode("utf-8")
        if path.endswith(".html"):
            assert POLICY.replace("'", "&#39;") in text
            assert not re.search(r"(?:src|href)=\"(?:https?:)?//", text)
            assert not re.search(r"<script(?![^>]* src=)|<[^>]*\s(?:style|on\w+)=", text)
        elif path in dict(static_files()):
            found = set(re.findall(r"https?://[^'\"\s]+", text))
            assert found <= {"http://www.w3.org/2000/svg"}
            assert not re.search(r"innerHTML|insertAdjacent|eval\(|document\.write", text)


def test_every_word_of_the_pages_is_there_in_both_languages(view: CatalogView) -> None:
    assert {language: len(texts) for language, texts in TEXTS.items()} == dict.fromkeys(
        LANGUAGES, len(TEXTS["en"])
    )
    assert all(
        isinstance(word, str) and word for texts in TEXTS.values() for word in texts.values()
    )
    sources = [*SITE_FOLDER.glob("templates/*.html"), *SITE_FOLDER.glob("static/*.js")]
    text = "\n".join(each.read_text("utf-8") for each in sources)
    used = re.findall(
        r"R\.(?:t|mark)\('(\w+)'|[{ ]t\(\"(\w+)\"\)|text\('(\w+)'\)|R\.say\('\w+', '(\w+)'"
        r"|section\('(\w+)'|\['(\w+)', (?:R\.|record)",
        text,
    )
    keys = {"".join(each) for each in used}
    assert len(keys) > 80
    assert {key for key in keys if not key.endswith("_")} <= TEXTS["en"].keys()
    for prefix, ends in {
        "page_": PAGES,
        "kind_": ("full", "lora", "base", "expert", "average", "candidate"),
        "verdict_": ("better", "worse", "undecided"),
        "which_": ("all", "flipped", "only_a", "only_b", "both_wrong"),
    }.items():
        assert {f"{prefix}{end}" for end in ends} <= TEXTS["en"].keys()


def test_every_kind_of_change_has_a_word() -> None:
    from assets.site.sections.changes import KINDS

    assert {f"change_{kind}" for kind in KINDS} <= TEXTS["en"].keys()


def test_places_hold_any_name() -> None:
    assert place(("model", "a/b#c 中")) == "artifact.html#model/a%2Fb%23c%20%E4%B8%AD"


def test_old_changes_are_counted(
    scored: ScoredStore, facts: CatalogFacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("assets.site.sections.changes.MOST_CHANGES", 2)
    many = [Failure(f"2026-01-0{n}T00:00:00", "ties/scores", "p", "no") for n in range(1, 4)]
    view = collect_view(scored.store, facts, many)
    assert len(view.changes) == 2
    assert view.hidden >= 3


def test_the_view_is_plain_data(view: CatalogView) -> None:
    assert json.loads(json.dumps(dataclasses.asdict(view)))["name"] == "team"
