"""Adapters that PEFT makes for many architectures merge, and the results answer as they should.

The reference takes the base with the adapter in it from PEFT, and merges in float64.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from tests.merges.merging import merge_in_process
from tests.merges.reference_merges import METHODS, assert_answers, recipe
from tests.models.architectures import (
    ARCHITECTURES,
    REMOTE,
    Architecture,
    RemoteArchitecture,
    write_family,
)
from tests.oracle.peers.oracle_environment import PeftCase, merge_with_peft

ADAPTED = [each for each in ARCHITECTURES if each.targets]


def loader_of(architecture: Architecture) -> str:
    """The class that PEFT wraps, as `module:name`."""
    if isinstance(architecture, RemoteArchitecture):
        return "tests.remote_code.modeling_named_decoder:NamedDecoder"
    return f"transformers:{architecture.model_class}"


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """For each architecture a folder with `base`, `e1`, `adapter` and PEFT's own `adapted`."""
    root = tmp_path_factory.mktemp("adapters")
    cases: list[PeftCase] = []
    for each in ADAPTED:
        folder = root / each.name
        base, _ = write_family(each, folder, experts=1)
        lora = {
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 12,
            "target_modules": list(each.targets),
            "fan_in_fan_out": each.name == "gpt2",
        }
        out = folder / "adapted"
        cases.append(PeftCase(each.name, base, folder / "adapter", out, lora, loader_of(each)))
    outcomes = merge_with_peft(root, cases)
    for each in ADAPTED:
        if isinstance(each, RemoteArchitecture):  # PEFT leaves the code out
            shutil.copy(REMOTE, root / each.name / "adapted")
    assert set(outcomes.values()) == {None}, outcomes
    return {each.name: root / each.name for each in ADAPTED}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ADAPTED, ids=lambda each: each.name)
def test_an_adapter_on_its_base_merges_as_the_model_that_peft_makes_of_both(
    architecture: Architecture, method: str, families: Mapping[str, Path], tmp_path: Path
) -> None:
    folder = families[architecture.name]
    base, expert = folder / "base", folder / "e1"
    config = tmp_path / "recipe.yaml"
    names = [f"{base}+{folder / 'adapter'}", str(expert)]
    config.write_text(yaml.safe_dump(recipe(method, str(base), names)))
    out = merge_in_process(config, tmp_path / "out")
    assert_answers(architecture, out, method, base, [folder / "adapted", expert])
