"""The site in a real browser: strangers' words stay words, and everybody can use it.

One site for the module, whose every free text wants to be a program (made_up_catalog.HOSTILE).
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from assets.site.pages import PAGES, render
from assets.site.publishing import publish_site
from assets.site.report import ReportOptions, report_html
from assets.site.view import CatalogView, CompositionView, CourseView, PartView
from assets.work.scoring.scoring import read_scores
from assets.work.suite_files import load_suite
from eval_ops.scores import compare, scores_digest
from tests.assets.site.made_up_catalog import FAILURES, HOSTILE, champion_of, facts_of, filled
from tests.assets.work.made_up_store import ScoredStore
from tests.orchestration.projects.browser import Page, wanted_browser

WATCH = """(() => {
  const stray = [...document.querySelectorAll('script')].filter(s => !s.src);
  const handlers = [...document.querySelectorAll('*')].filter(e =>
    [...e.attributes].some(a => a.name.startsWith('on') || /^\\s*javascript:/i.test(a.value)));
  return [window.hacked ?? null, stray.length, handlers.length,
          document.querySelectorAll('img,iframe,object,embed,textarea').length,
          ({}).hacked ?? null];
})()"""
QUIET = [None, 0, 0, 0, None]
"""What `WATCH` finds where no stranger's word became anything else."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScoredStore, CatalogView, Path]:
    root = tmp_path_factory.mktemp("hostile")
    scored = filled(root, HOSTILE)
    site = publish_site(scored.store, facts_of(scored, HOSTILE), FAILURES)
    view, out = composed(site.view), root / "site"
    render(view, out)
    (out / "report.html").write_text(report_html(view, ReportOptions("zh")), "utf-8")
    return scored, view, out


def composed(view: CatalogView) -> CatalogView:
    """The view with a composition of two steps and a course, of strangers' words too."""
    first = PartView(HOSTILE, "soup", "greedy", ("e1", HOSTILE), (("e1", 0.5),), "ab" * 32)
    last = PartView("ties", "merge", "ties", ("base", HOSTILE, "e2"), digest="cd" * 32)
    composition = CompositionView("ties", HOSTILE, (first, last), (("x=0", "cd" * 32),))
    raw = tuple((float(step), 0.4 + 0.01 * step, 0.3, 0.8) for step in range(0, 12, 2))
    windows = ((HOSTILE, raw[2:]), ("default", raw[3:]))
    ties, *others = view.recipes
    ties = replace(ties, course=CourseView(HOSTILE, raw, windows))
    return replace(view, compositions=(composition,), recipes=(ties, *others))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with wanted_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def places(scored: ScoredStore, view: CatalogView) -> list[str]:
    """Every page of the site, and one of each kind of thing that has a page."""
    from assets.site.pages import place

    short = [each.digest[:12] for each in view.checkpoints]
    of_things = [
        place(("model", HOSTILE)),
        place(("model", "e1")),
        place(("recipe", "ties")),
        place(("recipe", HOSTILE)),
        place(("composition", "ties", HOSTILE)),
        place(("checkpoint", champion_of(scored)[:12])),
        f"compare.html#{short[0]}/{short[1]}",
        "compare.html#e1/e2",
        "answers.html#one/b/" + "/".join(short[:2]) + "/flipped",
    ]
    pages = [f"{name}.html" for name in (*PAGES, "report") if name != "artifact"]
    return pages + of_things


def show(page: Page, site: Path, where: str) -> None:
    """Open a page afresh and wait until it is drawn."""
    page.open("about:blank")
    page.wait_until("location.href === 'about:blank'")
    page.open(f"{site.as_uri()}/{where}")
    drawn = "(window.Ronghe !== undefined || document.scripts.length === 0)"
    page.wait_until(
        f"document.readyState === 'complete' && {drawn}"
        " && (document.getElementById('view')?.children.length !== 0)"
    )


def test_no_word_of_a_stranger_runs_anywhere(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    scored, view, site = hostile
    told: dict[str, Any] = {}
    for where in places(scored, view):
        show(page, site, where)
        found = page.evaluate(WATCH)
        if found != QUIET or "not there" in page.text():
            told[where] = found, page.text()[:300]
    assert told == {}


def test_the_words_are_shown_as_they_are(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    from assets.site.pages import place

    _, _, site = hostile
    words = json.dumps("<script>window.hacked=1</script>")
    for where in ("models.html", "changes.html", place(("model", HOSTILE)), "answers.html"):
        show(page, site, where)
        page.wait_until(f"document.body.innerText.includes({words})")
        assert "{{ 7*7 }}" in page.text()
    show(page, site, place(("model", "e1")))
    assert page.evaluate("document.querySelector('pre code') !== null")
    page.wait_for("A card")


def test_a_link_to_what_is_gone_says_so(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    _, _, site = hostile
    for where in ("artifact.html#model/nobody", "artifact.html#%E0%A4%A", "artifact.html"):
        show(page, site, where)
        page.wait_for("This page is not there")


def test_the_board_is_filtered_sorted_and_searched(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    _, _, site = hostile
    show(page, site, "index.html")
    names = "[...document.querySelectorAll('#board tbody th a')].map(each => each.textContent)"
    first = page.evaluate(names)
    assert first == ["ties e1+e2 x=1", "e1", "e2", "base"]
    page.evaluate(
        "(() => { const s = document.getElementById('search'); s.value = 'E';"
        " s.dispatchEvent(new Event('input')); })()"
    )
    page.evaluate("document.querySelector('th[data-sort=mean] button').click()")
    assert page.evaluate(names) == first[::-1]
    order = "document.querySelector('th[data-sort=mean]').getAttribute('aria-sort')"
    assert page.evaluate(order) == "ascending"
    assert page.evaluate("location.hash") == "#q=E&sort=mean&down=0"
    page.evaluate(
        "(() => { const s = document.getElementById('search'); s.value = 'ties x=1';"
        " s.dispatchEvent(new Event('input')); })()"
    )
    assert page.evaluate(names) == ["ties e1+e2 x=1"]
    assert "1 of 4" in page.text()
    assert "Scores from elsewhere" in page.text()
    assert "70.0 60.4–78.1" in " ".join(page.text().split())
    show(page, site, "artifact.html#model/e1")
    page.wait_for("Scores from elsewhere")
    assert "C-Eval" in page.text()


def test_the_language_changes_and_the_place_stays(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    _, _, site = hostile
    show(page, site, "index.html#q=e1&sort=name&down=0")
    rows = "document.querySelectorAll('#board tbody tr').length"
    before = page.evaluate(f"[location.href, {rows}]")
    page.evaluate("document.getElementById('language').click()")
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    assert "排行榜" in page.text()
    assert page.evaluate(f"[location.href, {rows}]") == before
    assert page.evaluate("document.getElementById('search').value") == "e1"
    show(page, site, "changes.html")  # it is remembered
    assert "本目录中的变更" in page.text()
    assert "显著高于最佳单个专家“e1”" in page.text()  # our own reasons too
    assert "is significantly above" not in page.text()
    page.evaluate("document.getElementById('language').click()")
    assert "What changed in this catalog" in page.text()
    assert "is significantly above that of the best single expert 'e1'" in page.text()


def test_two_candidates_are_paired_as_python_pairs_them(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    scored, view, site = hostile
    suite = load_suite(scored.root / "one.yaml")
    digests = [each.digest for each in view.checkpoints[:2]]
    ours, theirs = (
        read_scores(scored.store.get("scores", scores_digest(digest, suite.digest)))
        for digest in digests
    )
    told = compare(ours, theirs)
    show(page, site, f"compare.html#{digests[0][:12]}/{digests[1][:12]}")
    page.wait_for("McNemar p")
    cells = page.evaluate(
        "[...document.querySelectorAll('main table tbody tr')][0].innerText.split('\\t')"
    )
    assert [int(cells[4]), int(cells[5])] == [told.only_ours, told.only_theirs]
    assert told.p_value is not None
    assert float(cells[6]) == pytest.approx(told.p_value, rel=0.05)
    exact = page.evaluate(f"Ronghe.mcnemar({told.only_ours}, {told.only_theirs})")
    assert exact == pytest.approx(told.p_value, rel=1e-9)


def test_two_models_are_compared_layer_by_layer(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    _, _, site = hostile
    show(page, site, "compare.html#e1/e2")
    page.wait_for("Cosine of their task vectors by layer")
    assert page.evaluate("document.querySelectorAll('svg .bar').length") == 6 + 2 + 2  # and keys
    rows = page.evaluate(
        "[...document.querySelectorAll('details table tbody tr')].map(row =>"
        " [...row.cells].map(each => each.textContent))"
    )
    assert rows == [
        ["0", "3", "2", "0.25"], ["1", "1.5", "1", "–"], ["in no layer", "0.1", "0.1", "-0.5"],
    ]  # fmt: skip


def test_the_flipped_questions_are_those_that_flipped(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    _, view, site = hostile
    (answers,) = view.answers
    first, second = answers.values[0], answers.values[1]
    flipped = [item[0] for item, a, b in zip(answers.items, first, second, strict=True) if a != b]
    digests = [digest[:12] for _, digest in answers.models[:2]]
    show(page, site, f"answers.html#one/b/{digests[0]}/{digests[1]}/flipped")
    page.wait_until("document.querySelectorAll('.questions > li').length > 0")
    shown = page.evaluate(
        "[...document.querySelectorAll('.question small')].map(each => each.textContent)"
    )
    assert shown == flipped[: len(shown)]
    assert len(shown) == min(30, len(flipped))


def test_nothing_serious_is_found_by_axe(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    spec = find_spec("axe_core_python")
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip("axe-core-python is not installed (`pip install ronghe[dev]`)")
    (script,) = Path(spec.submodule_search_locations[0]).rglob("axe.min.js")
    axe = script.read_text("utf-8")
    scored, view, site = hostile
    found: list[str] = []
    for number, where in enumerate(places(scored, view)):
        show(page, site, where)
        if number % 2:  # every other page in Chinese
            page.evaluate("window.Ronghe?.setLanguage('zh')")
        page.evaluate(f"(() => {{ {axe}; return 1; }})()")
        page.evaluate("axe.run().then(each => { window.told = each; })")
        page.wait_until("window.told !== undefined")
        told = page.evaluate(
            "window.told.violations.map("
            "v => [v.impact, v.id, v.nodes.map(n => n.html).slice(0, 3)])"
        )
        assert page.evaluate("window.told.passes.length") > 10
        found += [f"{where}: {each}" for each in told if each[0] in ("serious", "critical")]
    page.evaluate("localStorage.removeItem('ronghe-language')")
    assert found == []


def test_a_phone_shows_every_page_without_scrolling_sideways(
    page: Page, hostile: tuple[ScoredStore, CatalogView, Path]
) -> None:
    scored, view, site = hostile
    wide: list[str] = []
    phone = page.narrow(390)
    for where in places(scored, view):
        show(page, site, where)
        assert phone.evaluate("innerWidth") == 390
        if phone.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(where)
    assert wide == []
