"""The catalog: every fault of every file at once, each with its place and a way out."""

import re
from pathlib import Path

import pytest
import yaml

from orchestration.catalogs import CatalogError, load_catalog
from tests.merges.merging import ROOT
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    SLERP,
    TASK_ARITHMETIC,
    write_models,
    write_suite,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    for folder in ("recipes", "suites", "items"):
        (tmp_path / folder).mkdir()
    write_models(tmp_path, ["e1", "e2", "e3"])
    write_suite(tmp_path)
    return tmp_path


def write_recipe(catalog: Path, name: str, recipe: dict[str, object]) -> None:
    (catalog / "recipes" / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def change_models(catalog: Path, text: str) -> None:
    (catalog / "models.yaml").write_text(text, encoding="utf-8")


def told(catalog: Path) -> str:
    """What is wrong with a catalog that loads all the same."""
    return "\n".join(map(str, load_catalog(catalog).broken.values()))


def refused(catalog: Path, match: str) -> None:
    """A catalog with one broken part."""
    (part,) = load_catalog(catalog).broken.values()
    assert re.search(match, str(part)), str(part)


def test_sets_are_sorted_names_whatever_the_order_in_the_file(catalog: Path) -> None:
    write_models(catalog, ["e3", "e1", "e2"])
    write_recipe(catalog, "average", AVERAGE)
    write_recipe(catalog, "slerp", SLERP)
    loaded = load_catalog(catalog)
    assert loaded.sets == ("e1+e2", "e1+e2+e3", "e1+e3", "e2+e3")
    assert loaded.sets_of(loaded.recipes["slerp"]) == ("e1+e2", "e1+e3", "e2+e3")


def test_the_shipped_catalog_is_sound() -> None:
    loaded = load_catalog(ROOT / "catalog")
    assert loaded.sets == (
        "herbs+idioms",
        "herbs+idioms+times-table",
        "herbs+times-table",
        "idioms+times-table",
    )
    for recipe in loaded.recipes.values():
        assert recipe.name == "average" or len(recipe.coefficients()) >= 3
        assert recipe.suite == "quickstart"
        assert recipe.dtype == "float32"


def test_faults_of_all_files_are_told_at_once(catalog: Path) -> None:
    change_models(
        catalog,
        """
models:
  - {name: base, source: ../upstream/base}
  - {name: e1, source: ../upstream/e1, base: bsae}
  - {name: e2, soruce: ../upstream/e2, base: base}
  - {name: "e3|x", source: ../upstream/e3, base: base, kind: lroa}
""",
    )
    write_recipe(catalog, "ties", {**TASK_ARITHMETIC, "merge_method": "tiess"})
    write_recipe(catalog, "odd", {**TASK_ARITHMETIC, "parameters": {"wieght": 1.0}})
    message = told(catalog)
    for part in (
        "models.yaml: model 'e1': base is 'bsae', which is no model of the catalog. Did you mean",
        "models.yaml: models[2].soruce is no key of a model. Did you mean 'source'?",
        "models.yaml: models[2].source is missing",
        "models.yaml: models[3].kind is 'lroa'; it must be 'full' or 'lora'",
        "recipes/ties.yaml: merge_method: no merge method is called 'tiess'. Did you mean 'ties'?",
        "models.yaml: models[3].name is 'e3|x'; Dagster's partition keys allow no '|'",
        "recipes/odd.yaml: parameters.wieght is no parameter of task_arithmetic. Did you mean",
    ):
        assert part in message


@pytest.mark.parametrize("name", ["a|b", "a,b", "a+b", "[a]", "a...b", "a b"])
def test_names_that_are_no_partition_keys_are_refused(catalog: Path, name: str) -> None:
    models = [{"name": name, "source": "x"}, {"name": "base", "source": "y"}]
    change_models(catalog, yaml.safe_dump({"models": models}))
    refused(catalog, r"models\[0\]\.name is .*partition keys allow no")
    change_models(catalog, yaml.safe_dump({"models": models[:1]}))
    with pytest.raises(CatalogError, match=r"models\[0\]\.name is .*partition keys allow no"):
        load_catalog(catalog)


def test_chinese_names_and_slashes_are_fine(catalog: Path) -> None:
    models = [
        {"name": "通义/基座", "source": "x"},
        {"name": "神农", "source": "y", "base": "通义/基座"},
        {"name": "成语", "source": "z", "base": "通义/基座"},
    ]
    change_models(catalog, yaml.safe_dump({"models": models}, allow_unicode=True))
    write_recipe(catalog, "average", {k: v for k, v in AVERAGE.items() if k != "suite"})
    assert load_catalog(catalog).sets == ("成语+神农",)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"suite": "colors"}, r"suite is 'colors', not in suites/\. Did you mean 'colours'\?"),
        ({"base_model": "bases"}, r"base_model is 'bases', which is the base of no expert"),
        ({"experts": [["e1", "e9"]]}, r"experts names 'e9', which is no expert of 'base'"),
        ({"gate": {"alowed_loss": 0.1}}, r"gate alowed_loss is not a known key"),
        ({"models": [{"model": "e7"}]}, r"models\[0\]\.model is 'e7', which is neither"),
        (
            {"tokenizer": {"source": "e7"}},
            r"recipe.yaml: tokenizer names 'e7', which is neither 'base' nor an expert of it",
        ),
        ({"sweep": {"lamda": [1.0]}}, r"sweep\.lamda is no parameter of task_arithmetic"),
    ],
)
def test_what_a_recipe_names_must_be_there(
    catalog: Path, change: dict[str, object], match: str
) -> None:
    write_recipe(catalog, "recipe", {**TASK_ARITHMETIC, **change})
    refused(catalog, match)


def test_a_recipe_without_sets_is_refused(catalog: Path) -> None:
    write_recipe(catalog, "slerp", {**SLERP, "experts": "all"})
    refused(catalog, "gives no expert set that slerp can merge")


def test_a_recipe_file_names_assets(catalog: Path) -> None:
    write_recipe(catalog, "task-arithmetic", TASK_ARITHMETIC)
    refused(catalog, "may hold letters, digits and '_'")


@pytest.mark.parametrize("name", ["model", "leaderboard", "statistics", "champion", "merged_stage"])
def test_a_recipe_is_not_called_as_other_assets_begin(catalog: Path, name: str) -> None:
    write_recipe(catalog, name, TASK_ARITHMETIC)
    taken = f"recipes/{name}.yaml is called '{name}', which begins the names of other assets;"
    refused(catalog, taken)
    assert "upstream_model" in told(catalog)


def test_a_missing_catalog_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"models\.yaml does not exist; .*RONGHE_CATALOG"):
        load_catalog(tmp_path / "nowhere")


def test_a_key_given_twice_is_refused_with_its_lines(catalog: Path) -> None:
    change_models(catalog, "models:\n- name: base\n  source: x\n  source: y\n")
    expected = r"models\.yaml: models\[0\]\.source is given twice, on line 3 and on line 4"
    with pytest.raises(CatalogError, match=expected):
        load_catalog(catalog)


def test_names_are_unique(catalog: Path) -> None:
    twice = [{"name": "base", "source": "x"}, {"name": "base", "source": "y"}]
    change_models(catalog, yaml.safe_dump({"models": twice}))
    refused(catalog, "names 'base' 2 times")


def test_only_full_experts_are_packed(catalog: Path) -> None:
    change_models(
        catalog,
        """
models:
  - {name: base, source: x, store: packed}
  - {name: e1, source: y, base: base, kind: lora, store: full}
  - {name: e2, source: z, base: base, store: packd}
  - {name: e3, source: z, base: base, store: packed}
""",
    )
    message = told(catalog)
    for part in (
        "model 'base': store is 'packed'; only an expert, which names its `base`, can be packed",
        "model 'e1': store is 'full'; an adapter stays an adapter, so leave it out",
        "models.yaml: models[2].store is 'packd'; it must be 'full' or 'packed'",
    ):
        assert part in message
    assert "model e3" not in message


def test_a_suite_is_called_as_its_file(catalog: Path) -> None:
    """Otherwise what is scored under one name would be ranked under another, and so never."""
    write_recipe(catalog, "average", AVERAGE)
    path = catalog / "suites" / "colours.yaml"
    path.write_text(path.read_text("utf-8").replace("name: colours", "name: colors"), "utf-8")
    loaded = load_catalog(catalog)
    assert list(loaded.broken) == ["suite colours"]
    assert "has `name: colors`; a suite of the catalog is called as its file" in told(catalog)
    assert list(loaded.recipes) == ["average"]  # it is merged all the same
    assert "colours" not in loaded.suite_digests


@pytest.mark.parametrize(
    ("file", "match"),
    [
        ("recipes/average.yml", r"ends in \.yaml; average\.yaml is there too\. Rename or remove"),
        ("recipes/other.YAML", r"recipe other\.YAML: recipes/other\.YAML is not read: a recipe's"),
        ("suites/colours.yml", r"suite colours\.yml: .*colours\.yaml is there too"),
    ],
)
def test_two_files_for_one_name_are_told(catalog: Path, file: str, match: str) -> None:
    write_recipe(catalog, "average", AVERAGE)
    (catalog / file).write_text("merge_method: linear\n", encoding="utf-8")
    refused(catalog, match)
    assert list(load_catalog(catalog).recipes) == ["average"]


def test_recipes_whose_names_differ_by_case_are_told(catalog: Path) -> None:
    for name in ("average", "Average", "other"):
        write_recipe(catalog, name, AVERAGE)
    assert list(load_catalog(catalog).recipes) == ["other"]
    assert "is nearly called 'average'; many disks take them for one" in told(catalog)


@pytest.mark.parametrize("names", [("e1", "E1"), ("e1", "ｅ1"), ("\u00e9", "e\u0301")])
def test_models_whose_names_are_nearly_the_same_are_told(
    catalog: Path, names: tuple[str, str]
) -> None:
    write_models(catalog, [*names, "z1", "z2"])
    loaded = load_catalog(catalog)
    assert set(loaded.broken) == {f"model {name}" for name in names}
    assert "many disks take them for one, so rename one" in told(catalog)
    assert not loaded.models["z1"].faults


def test_files_that_nobody_meant_are_left_alone(catalog: Path) -> None:
    write_recipe(catalog, "average", AVERAGE)
    for name in ("average.yaml~", ".average.yaml.swp", "._average.yaml", "README.md"):
        (catalog / "recipes" / name).write_text("\x00", encoding="utf-8")
    assert load_catalog(catalog).broken == {}


@pytest.mark.parametrize("text", ["[" * 3000, "\x00", "a: &a [*a]", "name: 2026-13-01", "- 1", ""])
def test_a_file_that_cannot_be_read_is_one_fault(catalog: Path, text: str) -> None:
    write_recipe(catalog, "average", AVERAGE)
    (catalog / "recipes" / "bad.yaml").write_text(text, encoding="utf-8")
    (catalog / "suites" / "bad.yaml").write_text(text, encoding="utf-8")
    loaded = load_catalog(catalog)
    assert set(loaded.broken) == {"recipe bad", "suite bad"}
    assert (list(loaded.recipes), list(loaded.suite_digests)) == (["average"], ["colours"])


def test_a_broken_model_is_still_in_its_expert_sets(catalog: Path) -> None:
    write_recipe(catalog, "average", AVERAGE)
    whole = load_catalog(catalog).sets
    text = (catalog / "models.yaml").read_text("utf-8")
    for broken in (
        text.replace("name: e3", "name: e3\n  bsae: base"),
        text.replace("source: ../upstream/e3", "source: 3"),
        text.replace("name: e3\n", "name: e3\n  kind: qlora\n"),
        text.replace("- base: base\n  name: e3", "- base: bsae\n  name: e3"),
        f"{text}- {{name: e3, source: twice, base: base}}\n",
    ):
        assert broken != text
        change_models(catalog, broken)
        loaded = load_catalog(catalog)
        assert list(loaded.broken) == ["model e3"], broken
        assert loaded.sets == whole
        assert loaded.models["e3"].faults


def test_a_source_with_a_password_is_refused_before_any_work(catalog: Path) -> None:
    sources = {"a": "s3://me:secret@bucket/x", "b": f"hf://o/n@hf_{'a1' * 20}", "c": "hf://o/n"}
    models = [{"name": name, "source": source} for name, source in sources.items()]
    change_models(catalog, yaml.safe_dump({"models": models}))
    loaded = load_catalog(catalog)
    assert set(loaded.broken) == {"model a", "model b"}
    assert "source holds a secret" in told(catalog)
    assert "secret@" not in told(catalog)


def test_a_suite_that_is_not_there_stops_no_merge(catalog: Path) -> None:
    write_recipe(catalog, "average", AVERAGE)
    write_recipe(catalog, "lost", {**AVERAGE, "suite": "shades"})
    (catalog / "items" / "colours.jsonl").unlink()
    loaded = load_catalog(catalog)
    assert set(loaded.broken) == {"suite colours", "suite shades"}
    assert "suite is 'shades', not in suites/" in told(catalog)
    assert "the items file does not exist" in told(catalog)
    assert set(loaded.recipes) == {"average", "lost"}
    assert not loaded.broken["suite colours"].told_early  # items may be made later


def test_a_required_parameter_that_is_given_nowhere_is_told_before_any_merge(catalog: Path) -> None:
    write_recipe(catalog, "arc", {key: each for key, each in SLERP.items() if key != "sweep"})
    refused(catalog, r"recipes/arc\.yaml: parameters\.t has no value, and slerp requires it")
    listed = [{"model": "e1", "parameters": {"weight": 0.5}}]
    some = {"merge_method": "linear", "experts": [["e2"]], "models": listed}
    write_recipe(catalog, "arc", some)  # for e2 there is no value, which planning tells
    assert load_catalog(catalog).broken == {}
