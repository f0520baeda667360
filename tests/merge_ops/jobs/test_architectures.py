"""Models of fifteen architectures are merged by four methods, load, and answer as they should."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.merges.merging import merge_in_process
from tests.merges.reference_merges import METHODS, assert_answers, recipe
from tests.models.architectures import ARCHITECTURES, Architecture, write_family


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, list[Path]]:
    root = tmp_path_factory.mktemp("architectures")
    return {each.name: write_family(each, root / each.name) for each in ARCHITECTURES}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda each: each.name)
def test_a_merge_loads_and_answers_as_a_float64_merge(
    architecture: Architecture, method: str, families: Mapping[str, list[Path]], tmp_path: Path
) -> None:
    base, *experts = families[architecture.name]
    config = tmp_path / "recipe.yaml"
    config.write_text(yaml.safe_dump(recipe(method, str(base), [*map(str, experts)])))
    out = merge_in_process(config, tmp_path / "out")
    assert_answers(architecture, out, method, base, experts)
