"""A file of gates: written, read, and every fault of one that is something else."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from merge_ops.calibration.gates import (
    FORMAT,
    gate_key,
    gates_digest,
    metadata_of,
    read_gates,
    write_gates,
)
from merge_ops.errors import CheckpointError, MissingModelError, OutputError, StatisticsError

TOLD = {"mode": "hidden", "key": "k" * 64}


def some_gates(layers: int = 3, experts: int = 2, hidden: int = 4) -> dict[int, np.ndarray]:
    draw = np.random.default_rng(1)
    return {
        layer: draw.standard_normal((experts, hidden)).astype(np.float32) for layer in range(layers)
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_gates(tmp_path / "gates.safetensors", some_gates(), TOLD)
    return tmp_path / "gates.safetensors"


def test_what_is_written_is_read_again(file: Path) -> None:
    read = read_gates(file, layers=3, experts=2, hidden=4, key=TOLD["key"])
    assert list(read) == [0, 1, 2]
    for layer, rows in some_gates().items():
        assert read[layer].dtype == np.float32
        np.testing.assert_array_equal(read[layer], rows)
    told = metadata_of(file)
    assert told["format"] == FORMAT
    assert told["mode"] == "hidden"
    assert told["content"] == gates_digest(some_gates())
    assert list(file.parent.iterdir()) == [file]


def test_others_read_the_file_and_its_bytes_are_settled(file: Path, tmp_path: Path) -> None:
    assert sorted(load_file(file)) == ["layers.0.gate", "layers.1.gate", "layers.2.gate"]
    again = tmp_path / "again.safetensors"
    write_gates(again, dict(reversed(some_gates().items())), dict(reversed(TOLD.items())))
    assert again.read_bytes() == file.read_bytes()


def test_the_key_follows_from_everything_that_decides() -> None:
    one = gate_key("b", "t", [(["a"], []), (["b"], ["c"])], "hidden")
    others = [
        gate_key("B", "t", [(["a"], []), (["b"], ["c"])], "hidden"),
        gate_key("b", "T", [(["a"], []), (["b"], ["c"])], "hidden"),
        gate_key("b", "t", [(["b"], ["c"]), (["a"], [])], "hidden"),
        gate_key("b", "t", [(["a"], []), (["b", "c"], [])], "hidden"),
        gate_key("b", "t", [(["a"], []), (["b"], ["c"])], "hidden_avg"),
    ]
    assert one == gate_key("b", "t", [(("a",), ()), (("b",), ("c",))], "hidden")
    assert len({one, *others}) == 6


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 6))
def test_the_digest_knows_every_number_and_shape(layers: int, experts: int, hidden: int) -> None:
    gates = some_gates(layers, experts, hidden)
    before = gates_digest(gates)
    gates[layers - 1][-1, -1] += 1
    assert gates_digest(gates) != before


def save(path: Path, tensors: dict[str, np.ndarray], **told: str) -> Path:
    save_file(tensors, path, metadata={"format": FORMAT, **TOLD, **told})
    return path


def rows(*shape: int) -> np.ndarray:
    return np.ones(shape, dtype=np.float32)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    tensors = {
        "layers.0.gate": rows(2, 4),
        "layers.2.gate": rows(2, 5),
        "layers.3.gate": np.ones((2, 4)),
        "layers.4.gate": rows(2),
        "layers.05.gate": rows(2, 4),
    }
    path = save(tmp_path / "bad.safetensors", tensors)
    with pytest.raises(StatisticsError, match=r"bad\.safetensors: 5 faults") as caught:
        read_gates(path)
    text = str(caught.value)
    assert "tensor 'layers.05.gate' is no gate; the names are layers.0.gate" in text
    assert "lacks layers.1.gate; there must be one for each of 5 layers" in text
    assert "layers.2.gate has the shape [2, 5]; it must be [2, 4] (moe_experts, hidden" in text
    assert "layers.3.gate is F64; it must be F32" in text
    assert "layers.4.gate has the shape [2]; it must be [2, 4]" in text


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"layers": 5}, "lacks layers.3.gate, layers.4.gate; there must be one for each of 5"),
        ({"layers": 2}, "layers.2.gate is beyond the 2 layers, 0 to 1, of the model"),
        ({"experts": 3}, "layers.0.gate has the shape [2, 4]; it must be [3, 4]"),
        ({"hidden": 8}, "layers.0.gate has the shape [2, 4]; it must be [2, 8]"),
        ({"key": "other"}, "these gates are of another base, other prompts or another mode"),
    ],
)
def test_gates_of_another_model_are_refused(file: Path, wanted: dict[str, int], told: str) -> None:
    with pytest.raises(StatisticsError, match=re.escape(told)):
        read_gates(file, **wanted)  # pyright: ignore[reportArgumentType]


def test_what_is_no_file_of_gates_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingModelError, match="is not there; `ronghe gates` writes"):
        read_gates(tmp_path / "none.safetensors")
    path = save(tmp_path / "model.safetensors", {"layers.0.gate": rows(2, 4)}, format="pt")
    with pytest.raises(StatisticsError, match="is 'pt'; it must be 'ronghe-gates-1'"):
        read_gates(path)
    with pytest.raises(StatisticsError, match="this is no file of gates"):
        metadata_of(path)
    save(path, {"layers.0.gate": rows(2, 4)}, mode="")
    with pytest.raises(StatisticsError, match=r"metadata\.mode is missing"):
        read_gates(path)
    path.write_bytes(b"{}")
    with pytest.raises(CheckpointError, match="no safetensors file"):
        read_gates(path)


def test_nan_and_damage_are_found(file: Path) -> None:
    gates = some_gates()
    gates[1][1, 2] = np.nan
    save(file, {f"layers.{layer}.gate": each for layer, each in gates.items()})
    nan = r"layers\.1\.gate has NaN or infinity in the row of moe_expert 1"
    with pytest.raises(StatisticsError, match=nan):
        read_gates(file)
    with pytest.raises(StatisticsError, match=nan):
        write_gates(file, gates, TOLD)
    write_gates(file, some_gates(), TOLD)
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="its numbers are not those that were written"):
        read_gates(file)


def test_only_whole_gates_are_written(tmp_path: Path) -> None:
    path = tmp_path / "gates.safetensors"
    for gates, told in (
        ({}, "has the layers none"),
        ({1: rows(2, 4)}, "has the layers 1; there must be 0, 1"),
        ({0: rows(2, 4), 1: rows(3, 4)}, r"layers\.1\.gate has the shape \[3, 4\]"),
    ):
        with pytest.raises(StatisticsError, match=told):
            write_gates(path, gates, TOLD)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="gates cannot be written"):
        write_gates(tmp_path / "file" / "gates.safetensors", some_gates(), TOLD)
    assert not path.exists()
