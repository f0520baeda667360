"""Spoiled files of strangers give an error of ours or are read; `benchmarks/fuzz.py` runs more."""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merge_ops.checkpoints.files.bounded_yaml import load_documents
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError, CompatibilityError, RecipeError
from merge_ops.recipes.reading import parse_recipe
from merge_ops.sources.lora.adapters import read_adapter
from resources.errors import DamagedArtifactError
from resources.store.artifact_store import ArtifactStore
from tests.attacks.fuzz_samples import ADAPTER_CONFIG, REF, YAML_PIECES
from tests.attacks.fuzz_targets import ADAPTER_WEIGHTS, SHARES, WEIGHTS, MemorySource
from tests.attacks.fuzzing import HANG_SECONDS, OURS, Tally, guarded, run_case

CASES = 3000
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
ENTRIES = st.dictionaries(
    st.text(max_size=9),
    st.fixed_dictionaries(
        {
            "dtype": st.sampled_from(("F32", "BF16", "U8", "I64", "", "f32")) | VALUES,
            "shape": st.lists(st.integers(-1, 4), max_size=4) | VALUES,
            "data_offsets": st.lists(st.integers(-1, 64), min_size=2, max_size=2) | VALUES,
        }
    )
    | VALUES,
    max_size=4,
)


def test_spoiled_files_are_refused_clearly_or_read(tmp_path: Path) -> None:
    tally = Tally()
    with guarded():
        for number in range(CASES):
            tally.add(*run_case(20261121, number, tmp_path))
    assert tally.finds == []
    assert set(tally.outcomes) == set(SHARES)
    read = {target for target, outcomes in tally.outcomes.items() if outcomes["success"]}
    assert read >= {
        "header",
        "index",
        "config",
        "adapter",
        "tokenizer",
        "masks",
        "manifest",
        "plan",
    }
    assert all(outcomes.total() > outcomes["success"] for outcomes in tally.outcomes.values())


@settings(deadline=None, max_examples=60)
@given(ENTRIES | VALUES, st.binary(max_size=64))
def test_any_header_is_read_or_refused(header: object, data: bytes) -> None:
    text = json.dumps(header).encode()
    file = len(text).to_bytes(8, "little") + text + data
    try:
        found = open_checkpoint("m", MemorySource({"model.safetensors": file}))
    except CheckpointError as error:
        str(error).encode()
    else:
        assert sum(entry.nbytes for entry in found.tensors.values()) == len(data)
        assert set(found.tensors) == set(header) - {"__metadata__"}  # type: ignore[call-overload]


@settings(deadline=None, max_examples=60)
@given(VALUES | st.dictionaries(st.just("weight_map"), st.dictionaries(st.text(), VALUES)))
def test_any_index_is_read_or_refused(index: object) -> None:
    files = {"model.safetensors.index.json": json.dumps(index).encode(), "a.safetensors": WEIGHTS}
    with pytest.raises(CheckpointError, match=r"index\.json|a\.safetensors"):
        open_checkpoint("m", MemorySource(files))


@settings(deadline=None, max_examples=60)
@given(VALUES)
def test_any_recipe_is_read_or_refused(document: object) -> None:
    with pytest.raises(RecipeError, match=r"^r\.yaml: "):
        parse_recipe(json.dumps(document), "r", "r.yaml")


@pytest.mark.parametrize("piece", YAML_PIECES[:8], ids=lambda piece: piece[:12])
def test_a_yaml_bomb_is_refused_before_it_goes_off(piece: str) -> None:
    with guarded(512 << 20), pytest.raises(RecipeError, match=r"r\.yaml: ") as caught:
        parse_recipe(f"merge_method: linear\nmodels: {piece}\nweight: *l11\n", "r", "r.yaml")
    assert len(str(caught.value)) < 1000


def test_aliases_of_a_bounded_size_are_read() -> None:
    text = "a: &half {weight: 0.5}\nb: {<<: *half, density: 1}\nc: [*half, *half]\n"
    half = {"weight": 0.5}
    whole = {"a": half, "b": {**half, "density": 1}, "c": [half, half]}
    assert load_documents(text) == [whole]


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ({"dtype": "F32", "shape": {}, "data_offsets": [0, 4]}, "malformed header entry"),
        ({"dtype": "U8", "shape": [2**62] * 60_000, "data_offsets": [0, 4]}, "malformed"),
        ({"dtype": "U8", "shape": [2**63], "data_offsets": [0, 2**63]}, "malformed"),
        ({"dtype": "F33" * 999, "shape": [], "data_offsets": [0, 4]}, "unknown dtype 'F33F33"),
    ],
)
def test_a_header_that_would_cost_hours_is_refused_at_once(entry: object, problem: str) -> None:
    text = json.dumps({"a": entry}).encode()
    file = len(text).to_bytes(8, "little") + text + bytes(4)
    with guarded(), pytest.raises(CheckpointError, match=problem) as caught:
        open_checkpoint("m", MemorySource({"model.safetensors": file}))
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "text", [b'{"\\ud800": 1}', '{"a": 1}'.encode("utf-16"), b"\xef\xbb\xbf{}"]
)
def test_json_that_no_other_reader_takes_is_refused(text: bytes) -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": text}
    with pytest.raises(CheckpointError, match=r"config\.json: not valid JSON"):
        open_checkpoint("m", MemorySource(files))


def test_a_config_that_nests_without_end_is_refused() -> None:
    files = {"model.safetensors": WEIGHTS, "config.json": b'{"a":' * 500 + b"1" + b"}" * 500}
    with pytest.raises(CheckpointError, match="nested more than 100 deep"):
        open_checkpoint("m", MemorySource(files))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"rank_pattern": {r"(q|k)_\3": 2}}, "which refers to a group; name the modules"),
        ({"alpha_pattern": {"(" * 99 + ")" * 99: 2}}, "which is too long .at most 4096 characters"),
        ({"rank_pattern": ["q_proj"]}, r"rank_pattern is \['q_proj'\]; it must be a mapping"),
        ({"alpha_pattern": {"a(": 2}}, "alpha_pattern holds 'a\\(', which is no regular"),
        ({"modules_to_save": 5}, "modules_to_save is 5; it must be a list of module names"),
        ({"r": 10**299}, "it must be a whole number above 0, at most"),
        ({"lora_alpha": 10**299}, "lora_alpha is 1000.*; it must be a number"),
        ({"use_rslora": "false"}, "use_rslora is 'false'; it must be true or false"),
        ({"fan_in_fan_out": [0]}, r"fan_in_fan_out is \[0\]; it must be true or false"),
    ],
)
def test_an_adapter_config_cannot_stop_the_reader(changes: dict[str, object], problem: str) -> None:
    config = json.dumps({**ADAPTER_CONFIG, **changes}).encode()
    files = {"adapter_config.json": config, "adapter_model.safetensors": ADAPTER_WEIGHTS}
    with guarded(), pytest.raises(CompatibilityError, match=problem):
        read_adapter("a", MemorySource(files))


@pytest.mark.parametrize("pattern", ["(.|..)*(?<=Z)", "(.+)+Z", "((.?){999}){999}Z"])
def test_a_pattern_with_endless_ways_to_match_is_read(pattern: str) -> None:
    config = json.dumps({**ADAPTER_CONFIG, "rank_pattern": {pattern: 7}}).encode()
    files = {"adapter_config.json": config, "adapter_model.safetensors": ADAPTER_WEIGHTS}
    with guarded():
        adapter = read_adapter("a", MemorySource(files))
    assert {adapter.config.rank_of(module) for module in adapter.factors} == {2}


def test_a_config_whose_lists_by_layer_are_none_can_be_restacked(tmp_path: Path) -> None:
    with guarded():
        for number in (140251, 395951, 644851, 700951):  # some claim counts that are refused
            only = ("plan", SHARES["plan"][0])
            _, outcome = run_case(0, number, tmp_path, HANG_SECONDS, only)
            assert outcome in ("success", "CheckpointError")


def test_a_ref_without_its_partition_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "refs" / "model" / "e1.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({name: value for name, value in REF.items() if name != "partition"}))
    with pytest.raises(DamagedArtifactError, match="the ref is not of format 1"):
        ArtifactStore.open(tmp_path.as_uri()).ref("model", "e1")


def test_the_same_number_is_the_same_case(tmp_path: Path) -> None:
    outcomes = []
    for target, _ in SHARES.values():
        for _ in range(2):
            with guarded():
                try:
                    target(random.Random(5), tmp_path)
                    outcomes.append("success")
                except OURS as error:
                    outcomes.append(str(error))
    assert outcomes[::2] == outcomes[1::2]
