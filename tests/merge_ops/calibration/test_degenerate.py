"""Gates that hardly tell moe_experts apart are told with their layers and a way out."""

import numpy as np

from merge_ops.calibration import gate_cautions
from merge_ops.calibration.degenerate import spans


def rows(*values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_sound_gates_are_not_told() -> None:
    assert gate_cautions({0: rows([1, 0], [0, 1]), 1: rows([1, 0], [0.6, 0.8])}, "gates") == ()
    assert gate_cautions({0: rows([1, 0, 0])}, "gates", "hidden") == ()  # one moe_expert
    short = {0: rows([0.1, 0, 0], [0, 0.1, 0])}
    assert gate_cautions(short, "gates", "uniform_random") == ()


def test_equal_rows_in_the_first_layer_are_last_tokens() -> None:
    same, other = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]
    good = rows(same, other, [0, 0, 1])
    gates = {0: rows(same, same, other), 1: good, 2: rows(other, same, other)}
    first, later = gate_cautions(gates, "gates of moe.yaml", "hidden")
    assert "gates of moe.yaml has equal rows for moe_experts 0 and 1 in layer 0" in str(first)
    assert "prompts that end in the same token are the same there" in str(first)
    assert "End the prompts of each expert in another token, or set gate_mode: hidden_avg" in str(
        first
    )
    assert "moe_experts 0 and 2 in layer 2, between which the router cannot choose" in str(later)
    assert "token's embedding" not in str(later)


def test_nearly_dependent_rows_are_told_by_their_condition() -> None:
    # Rows at an angle a: singular values √(1 ± cos a), so the condition is cot(a/2).
    near = rows([1, 0], [np.cos(0.2), np.sin(0.2)])
    gates = {0: near, 1: near, 2: rows([1, 0], [0, 1]), 3: near}
    (caution,) = gate_cautions(gates, "gates", "hidden")
    assert "nearly dependent in layers 0-1, 3 (condition up to 9.97, in layer 0" in str(caution)
    assert "or try gate_mode: hidden_avg" in str(caution)
    (other,) = gate_cautions(gates, "gates", "hidden_avg")
    assert "or try gate_mode: hidden" in str(other)


def test_rows_of_zeros_are_told() -> None:
    gates = {layer: rows([1, 0], [0, 0]) for layer in range(3)}
    (caution,) = gate_cautions(gates, "gates", "hidden")
    assert "a row of zeros for moe_expert 1 in layers 0-2: its positive and negative" in str(
        caution
    )


def test_layers_in_words() -> None:
    assert [spans([4]), spans([0, 1, 2, 5, 7, 8])] == ["layer 4", "layers 0-2, 5, 7-8"]
