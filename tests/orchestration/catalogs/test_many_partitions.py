"""What a catalog of many experts costs to load: counts of what is visited, never seconds."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.partitions.snap.snap import PartitionsSnap

from merge_ops.recipes import Recipe
from orchestration.catalogs import Catalog, Partitions, load_catalog
from orchestration.catalogs.partition_keys import KeyedOnce, Points
from orchestration.definitions import build_definitions
from orchestration.settings import load_settings
from tests.orchestration.projects.tiny_project import (
    AVERAGE,
    SLERP,
    TASK_ARITHMETIC,
    write_models,
    write_suite,
)


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """Ten experts in pairs, by three recipes that ask for the same 45 sets, and one of four."""
    for folder in ("recipes", "suites", "items"):
        (tmp_path / folder).mkdir()
    write_models(tmp_path, [f"e{number}" for number in range(10)])
    write_suite(tmp_path)
    pairs = {"experts": ["all-pairs"]}
    swept = {**TASK_ARITHMETIC, **pairs, "sweep": {"lambda": [0.5, 1.0]}}
    few = {**SLERP, "experts": [["e1", "e2"], ["e1", "e3"], ["e2", "e3"], ["e4", "e5"]]}
    for name, recipe in (
        ("average", {**AVERAGE, **pairs}),
        ("swept", swept),
        ("again", swept),
        ("few", few),
    ):
        text = yaml.safe_dump(recipe)
        (tmp_path / "recipes" / f"{name}.yaml").write_text(text, encoding="utf-8")
    return tmp_path


class CountedId(str):
    """A set's id that counts how often its members are looked at."""

    looked_at = 0

    def split(self, *_: object) -> list[str]:  # type: ignore[override]
        """Split as any text, counted."""
        CountedId.looked_at += 1
        return str(self).partition("+")[::2]  # type: ignore[return-value]


def test_equal_questions_are_answered_once_and_shared(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    expert_sets = Recipe.expert_sets

    def counted(recipe: Recipe, names: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
        asked.append(recipe.name)
        return expert_sets(recipe, names)

    monkeypatch.setattr(Recipe, "expert_sets", counted)
    build_definitions(load_settings({"RONGHE_CATALOG": str(catalog)}))
    assert len(asked) == 2, asked  # all pairs, and the four sets
    loaded = load_catalog(catalog)
    average, swept = loaded.recipes["average"], loaded.recipes["swept"]
    assert loaded.sets_of(average) is loaded.sets_of(swept)
    partitions = Partitions(loaded)
    assert partitions.sets_of(average) is partitions.sets_of(swept)
    assert partitions.grid_of(swept) is partitions.grid_of(loaded.recipes["again"])


def test_no_point_of_a_grid_is_made_while_definitions_load(
    catalog: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> Iterator[str]:
        raise AssertionError("a point of a grid was made")

    monkeypatch.setattr(Points, "__iter__", refuse)
    monkeypatch.setattr(dg.MultiPartitionsDefinition, "get_partition_keys", refuse)
    definitions = build_definitions(load_settings({"RONGHE_CATALOG": str(catalog)}))
    dg.Definitions.validate_loadable(definitions)


def test_each_set_is_looked_at_once_for_the_experts_in_it(catalog: Path) -> None:
    loaded = load_catalog(catalog)
    recipe = next(iter(loaded.recipes.values()))
    plain = Partitions(loaded).expert_to_sets(recipe)
    sets = tuple(map(CountedId, loaded.sets_of(recipe)))
    loaded.__dict__["sets_of"] = lambda _: sets
    CountedId.looked_at = 0
    counted = Partitions(loaded).expert_to_sets(recipe)
    assert CountedId.looked_at == 45
    keys = "downstream_partition_keys_by_upstream_partition_key"
    mapped = getattr(counted, keys)
    assert mapped == getattr(plain, keys)
    for expert in loaded.experts:
        assert mapped[expert] == [each for each in loaded.sets if expert in str(each).split("+")]


def test_a_method_of_two_models_shares_no_answer_with_one_of_any_number(catalog: Path) -> None:
    (catalog / "recipes" / "few.yaml").write_text(
        yaml.safe_dump({**SLERP, "experts": ["all", "all-pairs"]}), encoding="utf-8"
    )
    loaded = load_catalog(catalog)
    assert len(loaded.sets_of(loaded.recipes["few"])) == 45
    (catalog / "recipes" / "few.yaml").write_text(
        yaml.safe_dump({**AVERAGE, "experts": ["all", "all-pairs"]}), encoding="utf-8"
    )
    loaded = load_catalog(catalog)
    assert len(loaded.sets_of(loaded.recipes["few"])) == 46
    assert len(loaded.sets) == 46


def test_definitions_keyed_once_are_dagsters_own_to_everybody_else() -> None:
    keys = ["a+b", "a+中", "it's"]
    ours, theirs = KeyedOnce(keys), dg.StaticPartitionsDefinition(keys)
    assert ours == theirs
    assert theirs == ours
    assert ours != dg.StaticPartitionsDefinition(keys[:2])
    assert repr(ours) == repr(theirs)
    assert hash(ours) == hash(theirs)
    identifier = theirs.get_serializable_unique_identifier()
    assert ours.get_serializable_unique_identifier() == identifier
    snapshot = PartitionsSnap.from_def(ours)
    assert snapshot == PartitionsSnap.from_def(theirs)
    assert snapshot.get_partitions_definition() == ours
    assert KeyedOnce(tuple(keys)) == ours


def test_a_definitions_text_is_written_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []
    get_keys = dg.StaticPartitionsDefinition.get_partition_keys

    def counted(self: dg.StaticPartitionsDefinition) -> object:
        written.append(1)
        return get_keys(self)

    ours = KeyedOnce(["a", "b"])
    monkeypatch.setattr(dg.StaticPartitionsDefinition, "get_partition_keys", counted)
    looked_up = {ours: 1}
    assert all(looked_up[ours] == 1 for _ in range(10))
    assert len(written) == 1


def points_by_dagster(catalog: Catalog, name: str) -> dict[str, tuple[str, str]]:
    keys = Partitions(catalog).grid_of(catalog.recipes[name]).get_partition_keys()
    dimensions = [(str(key), key.keys_by_dimension) for key in keys]
    return {key: (each["experts"], each["coefficient"]) for key, each in dimensions}


def test_points_are_those_of_dagsters_grid_in_its_order(catalog: Path) -> None:
    loaded = load_catalog(catalog)
    for name, recipe in loaded.recipes.items():
        points = Partitions(loaded).points_of(recipe)
        assert list(points.items()) == list(points_by_dagster(loaded, name).items())
        assert len(points) == len(list(points))
    points = Partitions(loaded).points_of(loaded.recipes["swept"])
    assert "lambda=0.5|e1+e2" in points
    for absent in ("lambda=0.7|e1+e2", "lambda=0.5|e1+e1", "lambda=0.5", ""):
        assert absent not in points


def test_a_digest_of_points_changes_with_either_dimension() -> None:
    digests = {
        Points(("a", "b"), ("x",)).digest,
        Points(("a", "b"), ("x", "y")).digest,
        Points(("a", "b", "c"), ("x",)).digest,
        Points(("b",), ("x", "a")).digest,
    }
    assert len(digests) == 4
    assert Points(("a", "b"), ("x",)).digest in digests
