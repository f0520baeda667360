"""`ronghe init`, `add` and `check`: from two folders to a catalog that refreshes as it is."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
import yaml

from orchestration.catalogs import load_catalog
from orchestration.catalogs.catalog_name import named_settings
from orchestration.refreshing.refresh import refresh
from orchestration.settings import NAMES, load_settings
from resources.store import ArtifactStore
from tests.models import checkpoint_factory as factory
from tests.models.adapter_factory import lora_tensors, modules_of, write_adapter
from tests.resources.hub_server import running_hub_of

SHAPE = factory.Shape("qwen2", layers=1, hidden=32, intermediate=48, tied=True)
Ronghe = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, two full experts and an adapter, with cards, as a user may have them."""
    root = tmp_path_factory.mktemp("upstream")
    base = factory.base_tensors(SHAPE)
    factory.write_checkpoint(root / "base", base, SHAPE)
    for number, name in enumerate(("math", "诗词"), start=1):
        factory.write_checkpoint(root / name, factory.expert_tensors(base, seed=number), SHAPE)
    (root / "math" / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Math\n")
    (root / "run" / "checkpoint-200").mkdir(parents=True)
    tensors = lora_tensors(base, modules_of(base, "q_proj"), rank=4, seed=3)
    write_adapter(root / "run" / "checkpoint-200", tensors, r=4, lora_alpha=4)
    return root


@pytest.fixture
def here(tmp_path: Path, upstream: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the models beside it, and no settings."""
    for name in (*NAMES, "DAGSTER_HOME"):
        monkeypatch.delenv(name, raising=False)
    shutil.copytree(upstream, tmp_path / "models")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def models_of(folder: Path) -> dict[str, dict[str, object]]:
    document = yaml.safe_load((folder / "catalog" / "models.yaml").read_text(encoding="utf-8"))
    return {entry["name"]: entry for entry in document["models"]}


def test_what_is_begun_refreshes_as_it_is(
    here: Path, ronghe: Ronghe, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("--expert", "models/math", "--expert", "models/诗词", "--language", "zh")
    status, told = ronghe("init", "mine", "--base", "models/base", *given)
    assert status == 0, told
    assert "ronghe refresh" in told
    assert "\\n" not in told  # lines, and none escaped
    written = models_of(here / "mine")
    assert written["math"]["source"] == "../../models/math"
    assert written["math"]["licence"] == "apache-2.0"
    assert {entry.get("base") for entry in written.values()} == {None, "base"}
    texts = [path.read_text(encoding="utf-8") for path in here.glob("mine/catalog/**/*.yaml")]
    assert all("# " in text and any("一" <= each <= "鿿" for each in text) for text in texts)
    assert (here / "mine" / ".gitignore").read_text() == "/.ronghe/\n"

    monkeypatch.chdir(here / "mine")
    status, told = ronghe("check")
    assert (status, "no fault" in told) == (0, True), told
    settings = named_settings(load_settings())
    report = refresh(instance, settings)
    assert report.failures == []
    store = ArtifactStore.open(settings.store, catalog=settings.catalog_name)
    for recipe in ("average", "task_arithmetic", "ties", "slerp"):
        assert len(store.ref_table(f"{recipe}/merged_checkpoint").refs) == 1


def test_adapters_and_items_of_ones_own(here: Path, ronghe: Ronghe) -> None:
    rows = [{"prompt": f"{n}?", "choices": ["a", "b"], "answer": 0, "id": str(n)} for n in range(8)]
    (here / "题目.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    given = ("--expert", "m=models/math", "--expert", "models/run/checkpoint-200")
    status, told = ronghe("init", "我 的", "--base", "models/base", *given, "--suite", "题目.jsonl")
    assert status == 0, told
    assert "cd '我 的'" in told
    assert models_of(here / "我 的")["run-checkpoint-200"]["kind"] == "lora"
    catalog = load_catalog(here / "我 的" / "catalog")
    assert catalog.broken == {}
    assert {recipe.suite for recipe in catalog.recipes.values()} == {"题目"}
    assert len(catalog.recipes["task_arithmetic"].coefficients()) == 4


def test_everything_wrong_is_said_and_nothing_is_written(here: Path, ronghe: Ronghe) -> None:
    status, told = ronghe(
        "init", "mine", "--base", "models/run/checkpoint-200", "--expert", "nowhere"
    )
    assert status == 2
    assert "is an adapter, and a base model is none" in told
    assert "'nowhere'" in told
    status, told = ronghe("init", "mine", "--base", "models/base", "--expert", "a/b=models/math")
    assert status == 2
    given = ("--expert", "a=models/math", "--expert", "A=models/诗词")
    status, told = ronghe("init", "mine", "--base", "models/base", *given)
    assert status == 2
    assert "would be called 'A', and many disks take that for 'a'" in told
    status, told = ronghe(
        "init", "mine", "--base", "models/base", "--expert", "models/math", "--suite", "zhh"
    )
    assert status == 2
    assert "--suite is 'zhh', which is neither. Did you mean 'zh'?" in told
    assert not (here / "mine").exists()


def test_files_that_are_there_are_not_written_over(here: Path, ronghe: Ronghe) -> None:
    recipe = here / "mine" / "catalog" / "recipes" / "task_arithmetic.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.write_text("merge_method: ties  # of mine\n")
    given = ("--base", "models/base", "--expert", "models/math")
    status, told = ronghe("init", "mine", *given)
    assert status == 2
    assert "holds mine/catalog/recipes/task_arithmetic.yaml already" in told
    assert recipe.read_text() == "merge_method: ties  # of mine\n"
    assert not (here / "mine" / "catalog" / "models.yaml").exists()
    assert not (here / "mine" / ".gitignore").exists()


def test_names_of_the_hub(here: Path, ronghe: Ronghe, monkeypatch: pytest.MonkeyPatch) -> None:
    upstream = here / "models"
    hub = {"org/Base-1B": upstream / "base", "team/tcm": upstream / "run" / "checkpoint-200"}
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setenv("HF_HOME", str(here / "hf"))
    with running_hub_of(hub) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        status, told = ronghe("init", "mine", "--base", "org/Base-1B", "--expert", "team/tcm")
        assert status == 0, told
        assert running.downloads() == []
    written = models_of(here / "mine")
    assert written["Base-1B"]["source"] == "hf://org/Base-1B"
    assert written["tcm"] == {
        "name": "tcm", "source": "hf://team/tcm", "base": "Base-1B", "kind": "lora",
    }  # fmt: skip
    status, told = ronghe("init", "other", "--base", "org/B", "--expert", "t/c@v2", "--no-look")
    assert status == 0, told
    assert models_of(here / "other")["c"]["source"] == "hf://t/c@v2"


def test_add_keeps_every_other_byte(here: Path, ronghe: Ronghe, monkeypatch) -> None:
    ronghe("init", "mine", "--base", "models/base", "--expert", "models/math")
    monkeypatch.chdir(here / "mine")
    path = here / "mine" / "catalog" / "models.yaml"
    before = path.read_text(encoding="utf-8") + "\n# the end\n"
    path.write_text(before, encoding="utf-8")
    status, told = ronghe("add", "../models/诗词", "again=../models/math")
    assert status == 0, told
    after = path.read_text(encoding="utf-8")
    start, added, end = after.partition(
        after[len(before.removesuffix("\n# the end\n")) : -len("\n# the end\n")]
    )
    assert start + end == before
    assert added.count("- name: ") == 2
    assert set(models_of(here / "mine")) == {"base", "math", "诗词", "again"}
    status, told = ronghe("add", "../models/math")
    assert status == 2
    assert "would be called 'math', as a model of the catalog is; name it yourself" in told
    status, told = ronghe("add", "x=../models/math", "--base", "bas")
    assert "is 'bas', which is no model of the catalog. Did you mean 'base'?" in told
    assert path.read_text(encoding="utf-8") == after


def test_check_tells_all_faults_as_text_and_json(here: Path, ronghe: Ronghe, monkeypatch) -> None:
    ronghe("init", "mine", "--base", "models/base", "--expert", "models/math")
    monkeypatch.chdir(here / "mine")
    recipe = here / "mine" / "catalog" / "recipes" / "task_arithmetic.yaml"
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("lambda", "lamda"))
    other = factory.Shape("qwen2", layers=1, hidden=48, intermediate=48, tied=True)
    factory.write_checkpoint(here / "models" / "wide", factory.base_tensors(other), other)
    with (here / "mine" / "catalog" / "models.yaml").open("a") as models:
        models.write("  - {name: wide, source: ../../models/wide, base: base}\n")
        models.write("  - {name: gone, source: ../../models/gone, base: base}\n")
        models.write("  - {name: far, source: hf://org/far, base: base}\n")
    mean = "merge_method: linear\nexperts: [[math, wide]]\nparameters: {weight: 1.0}\n"
    (here / "mine" / "catalog" / "recipes" / "mean.yaml").write_text(mean)
    status, told = ronghe("check", "--json")
    assert status == 1
    document = json.loads(told)
    by_part = {each["part"]: each["told"] for each in document["faults"]}
    assert set(by_part) == {"recipe task_arithmetic", "model gone", "recipe mean [math+wide]"}
    assert "Did you mean 'lambda'?" in by_part["recipe task_arithmetic"]
    assert "there is no folder" in by_part["model gone"]
    assert document["sound"] is False
    assert document["not_looked_at"] == ["model far was not looked at: hf://org/far"]
    status, told = ronghe("check")
    assert status == 1
    assert f"{len(document['faults'])} faults" in told
    assert "and 4 more; --json has all" in told


def test_check_plans_a_search_where_it_begins_and_a_soup_of_all(
    here: Path, ronghe: Ronghe, monkeypatch
) -> None:
    """Both have no value of a required parameter: the search and the soup give it."""
    ronghe("init", "mine", "--base", "models/base", "--expert", "models/math")
    monkeypatch.chdir(here / "mine")
    catalog = here / "mine" / "catalog"
    (catalog / "suites").mkdir(exist_ok=True)
    rows = [
        {
            "id": f"{split}{n}",
            "split": split,
            "prompt": f"{split} {n}",
            "choices": ["a", "b"],
            "answer": 0,
        }
        for split in ("validation", "test")
        for n in range(2)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (catalog / "suites" / "one.jsonl").write_text(text, encoding="utf-8")
    suite = "name: one\nbenchmarks: [{name: b, items: one.jsonl}]\n"
    (catalog / "suites" / "one.yaml").write_text(suite, encoding="utf-8")
    soup = "merge_method: linear\nexperts: all\nsuite: one\nsoup: greedy\n"
    searched = (
        "merge_method: task_arithmetic\nexperts: all\nsuite: one\nsearch:\n  trials: 4\n"
        "  parameters: {weight: {low: 0, high: 1.5, per: expert},"
        " lambda: {low: 0.5, high: 1.5, per: layers, points: 2}}\n"
    )
    for name, recipe in (("soup", soup), ("wide", searched)):
        (catalog / "recipes" / f"{name}.yaml").write_text(recipe, encoding="utf-8")
    status, told = ronghe("check")
    assert status == 0, told
    assert "no fault" in told
