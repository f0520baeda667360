"""Training runs and steps of other structure in a catalog: what is wrong, before any work."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from merge_ops.recipes.document import recipe_document
from merge_ops.recipes.recipe_check import check_recipe
from orchestration.catalogs import load_catalog
from tests.models import checkpoint_factory as factory
from tests.orchestration.projects.tiny_project import SHAPE, make_project

SOUND = {"name": "pretrain", "steps": "../run"}
TAIL = {"window": {"run": "pretrain", "last": 2}}
PROMPTED = [{"source_model": "e1", "positive_prompts": ["x"]}]
E1 = [{"model": "e1"}]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("faults"), {}, experts=2).catalog


def told(catalog: Path, runs: object, recipe: dict[str, object] | None = None) -> str:
    """Everything that is broken, with these runs and a recipe `tail`."""
    file, path = catalog / "models.yaml", catalog / "recipes" / "tail.yaml"
    document = yaml.safe_load(file.read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump({**document, "runs": runs}), encoding="utf-8")
    path.unlink(missing_ok=True)
    if recipe is not None:
        path.write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return "\n".join(map(str, load_catalog(catalog).broken.values()))


RUNS = {
    r"runs must be a list of \{name, steps\}": {"name": "pretrain"},
    r"runs\[0\]\.steps is missing": [{"name": "pretrain"}],
    r"runs\[0\]\.step is no key of a run\. Did you mean 'steps'\?": [{**SOUND, "step": 3}],
    r"runs\[0\]\.name is 'a b'; a run's name may hold letters": [{**SOUND, "name": "a b"}],
    r"runs\[0\]\.name is the name of a model": [{**SOUND, "name": "e1"}],
    r"runs\[1\]\.name is 'pretrain', as that of runs\[0\]": [SOUND, SOUND],
    r"runs\[0\]\.max_size is 'much'; it must be": [{**SOUND, "max_size": "much"}],
    r"whose steps cannot be listed; a run is a folder, s3:// or hf://": [
        {**SOUND, "steps": "modelscope://a/b@step{step}"}
    ],
    r"steps has \{step\} more than once": [{**SOUND, "steps": "../run-{step}/{step}"}],
    r"steps of the Hub are revisions: write hf://owner/name@step\{step\}": [
        {**SOUND, "steps": "hf://owner/name"}
    ],
    r"runs\[0\]\.steps holds a secret": [{**SOUND, "steps": "s3://me:word@bucket/run"}],
}


@pytest.mark.parametrize(("fault", "runs"), RUNS.items())
def test_what_is_wrong_with_a_run(catalog: Path, fault: str, runs: object) -> None:
    found = told(catalog, runs)
    assert re.search(fault, found), found


RECIPES: dict[str, dict[str, object]] = {
    r"window\.run is 'pretrian', which is no run .* Did you mean 'pretrain'\?": {
        "window": {"run": "pretrian"}
    },
    r"window\.run lists references; a catalog's windows name a run": {"window": {"run": ["./a-1"]}},
    r"model 'e9' is neither a model of the catalog\.": {
        "convert": "llama",
        "models": [{"model": "e9"}],
    },
    r"model 'e1\+./a' is a model with an adapter: list that": {
        "base_model": "base",
        "experts": [{"source_model": "e1+./a", "positive_prompts": ["x"]}],
    },
    r"protect.key is 'k.json'; it must be the absolute path of a file on the machine": {
        "protect": {"key": "k.json"},
        "models": E1,
    },
    r"suite is 'colors', not in suites/": {**TAIL, "suite": "colors"},
    r"keep is 'none', and gates that are made of prompts": {
        "base_model": "base",
        "experts": PROMPTED,
        "keep": "none",
    },
    r"experts is missing; allowed: all-pairs": {"merge_method": "passthrough", "models": E1},
}


@pytest.mark.parametrize(("fault", "recipe"), RECIPES.items())
def test_what_is_wrong_with_a_step(catalog: Path, fault: str, recipe: dict[str, object]) -> None:
    found = told(catalog, [SOUND], recipe)
    assert re.search(fault, found), found


def test_sound_steps_have_one_set_that_says_what_they_are_made_of(catalog: Path) -> None:
    made = {
        "pretrain": TAIL,
        "e1": {"base_model": "base", "experts": PROMPTED},
        "e1+e2": {"base_model": "base", "gate_mode": "random",
                  "experts": [{"source_model": each} for each in ("e2", "e1")]},
        "base": {"expand": {"solar": 1}, "models": [{"model": "base"}]},
    }  # fmt: skip
    for named, recipe in made.items():
        assert told(catalog, [SOUND], recipe) == ""
        loaded = load_catalog(catalog)
        assert loaded.sets_of(loaded.recipes["tail"]) == (named,)
        assert loaded.base_opened(loaded.recipes["tail"]) == ""


def test_a_window_is_written_as_it_was_read() -> None:
    windows = [
        {"run": "pretrain"},
        {"run": "pretrain", "last": 3, "every": 100, "weights": "ema", "beta": 0.5},
        {"run": ["a-1", "a-2"], "weights": [0.25, 0.75], "unfinished": "leave_out"},
        {"run": {1: "a", 2: "b"}, "steps": [1, 2]},
    ]
    for window in windows:
        recipe = check_recipe({"window": window, "dtype": "float32"}, "tail", "tail.yaml")
        assert recipe_document(recipe, {}) == {"window": window, "dtype": "float32"}


def test_check_plans_windows_and_structure_from_headers(
    catalog: Path,
    monkeypatch: pytest.MonkeyPatch,
    ronghe: Callable[..., tuple[int, str]],
) -> None:
    base = factory.base_tensors(SHAPE)
    for step in (100, 200):
        folder = catalog.parent / "run" / f"checkpoint-{step}"
        factory.write_checkpoint(folder, factory.expert_tensors(base, step), SHAPE)
    assert told(catalog, [SOUND], {"align": "base", "base_model": "base", "models": E1}) == ""
    other = catalog / "recipes" / "windows.yaml"
    other.write_text(yaml.safe_dump(TAIL), encoding="utf-8")
    monkeypatch.setenv("RONGHE_CATALOG", str(catalog))
    status, said = ronghe("check", "--json")
    assert (status, '"plans": 2' in said) == (0, True), said
    other.write_text(yaml.safe_dump({"window": {"run": "pretrain", "last": 3}}), encoding="utf-8")
    status, said = ronghe("check", "--json")
    assert (status, "asks for the last 3, and the run has 2 step(s)" in said) == (1, True), said
