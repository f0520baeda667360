"""Pages of what is made in several steps, and the course of a training run, from store and file."""

from pathlib import Path

import pytest

from assets.site.facts import RecipeFacts
from assets.site.sections.composition_views import composition_views, course_view
from assets.site.view import StudyView
from assets.work import names
from assets.work.scoring.run_courses import FILE, RAW
from merge_ops.recipes import load_steps
from tests.assets.work.made_up_store import POINTS, ScoredStore

STEPS = """
name: thin
merge_method: linear
models: [{model: base}, {model: e3}]
---
merge_method: ties
base_model: thin
experts: [all]
parameters: {weight: 0.5}
suite: one
"""
SOUP = "soup: greedy\nmerge_method: linear\nexperts: [all]\nsuite: one\n"
WINDOW = "window: {run: pretraining, last: 4, weights: uniform}\nsuite: one\n"


@pytest.fixture
def scored(tmp_path: Path) -> ScoredStore:
    made = ScoredStore(tmp_path, items=4)
    made.everything({"x=0": 0.5})
    return made


def facts(folder: Path, text: str) -> RecipeFacts:
    path = folder / "ties.yaml"
    path.write_text(text, encoding="utf-8")
    return RecipeFacts(load_steps(path), POINTS)


def test_each_step_is_a_part_with_what_goes_in_and_what_it_made(scored: ScoredStore) -> None:
    recipe = facts(scored.root, STEPS)
    made = scored.candidate("x=1|e1+e2", 0.5)
    scored.store.point(names.step("ties", "thin"), None, "checkpoint", made)
    (found,) = composition_views(scored.store, "ties", recipe)
    thin, last = found.parts
    assert (thin.name, thin.kind, thin.sources) == ("thin", "merge", ("base", "e3"))
    assert thin.digest == made
    assert (last.name, last.method, last.sources) == ("ties", "ties", ("thin", "e1", "e2"))
    assert [point for point, _ in found.made] == ["x=0", "x=1"]
    assert last.digest == found.made[0][1]


def test_a_soup_has_its_members_and_a_window_its_run(scored: ScoredStore) -> None:
    trial = (3, {"weight[e1]": 0.25, "weight[e2]": 0.75, "weight[e3]": 0.0}, (0.5,), "", "")
    study = StudyView("ties", "e1+e2", "", "greedy", 0, "", ("mean",), 3, (), (trial,))
    (soup,) = composition_views(scored.store, "ties", facts(scored.root, SOUP), [study])
    (part,) = soup.parts
    assert (part.kind, part.weights) == ("soup", (("e1", 0.25), ("e2", 0.75)))
    (window,) = composition_views(scored.store, "ties", facts(scored.root, WINDOW))
    assert (window.parts[0].kind, window.parts[0].sources[0]) == ("window", "pretraining")


def test_one_merge_is_no_composition(scored: ScoredStore) -> None:
    plain = "merge_method: ties\nbase_model: base\nexperts: [all]\nparameters: {weight: 1}\n"
    recipe = facts(scored.root, plain)
    assert composition_views(scored.store, "ties", recipe) == []
    assert course_view(scored.store, "ties", recipe, {}) is None


def test_the_course_has_raw_steps_and_windows(scored: ScoredStore) -> None:
    recipe = facts(scored.root, WINDOW)
    numbers = {"mean": 50.0, "95 % from": 40.0, "95 % to": 60.0}
    rows = [{"newest step": n, "window": name, **numbers} for n in (10, 20) for name in (RAW, "w")]
    with scored.store.attempt(names.COURSE) as attempt:
        attempt.write_json(FILE, rows)
        digest = attempt.publish().digest
    scored.store.point(names.course("ties"), None, names.COURSE, digest)
    problems: dict[str, str] = {}
    course = course_view(scored.store, "ties", recipe, problems)
    assert course is not None
    assert course.raw == ((10.0, 0.5, 0.4, 0.6), (20.0, 0.5, 0.4, 0.6))
    assert course.merged == (("w", course.raw),)
    (scored.store.get(names.COURSE, digest).folder(checked=False) / FILE).write_text("[{}]")
    assert course_view(scored.store, "ties", recipe, problems) is None
    assert list(problems) == ["course of ties"]
