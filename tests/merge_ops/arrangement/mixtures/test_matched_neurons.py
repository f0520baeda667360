"""Neurons in the order of another moe_expert: found again, and the same for every cut."""

import numpy as np
import pytest
import torch

from merge_ops.arrangement.mixtures.matched_neurons import MatchedNeurons
from merge_ops.sources.moe_tensors import GivenRows

GATE, UP, DOWN = PARTS = ("w1", "w3", "w2")
NAMES = {(number, part): f"{number}.{part}" for number in range(2) for part in PARTS}


def expert(seed: int, inner: int = 6, hidden: int = 4) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    shapes = {GATE: (inner, hidden), UP: (inner, hidden), DOWN: (hidden, inner)}
    return {part: draw.standard_normal(shape).astype(np.float32) for part, shape in shapes.items()}


def sources(first: dict[str, np.ndarray], member: dict[str, np.ndarray]):
    found = {
        NAMES[number, part]: GivenRows("mixture", "F32", values)
        for number, each in enumerate((first, member))
        for part, values in each.items()
    }
    return found.__getitem__


def fetch(*_: object) -> torch.Tensor:
    raise AssertionError("nothing is stored")


@pytest.mark.parametrize("part", PARTS)
def test_a_shuffled_copy_is_the_first_whatever_is_asked_at_a_time(part: str):
    first, order = expert(1), np.random.default_rng(2).permutation(6)
    member = {GATE: first[GATE][order], UP: first[UP][order], DOWN: first[DOWN][:, order]}
    neurons = MatchedNeurons(PARTS)
    source = neurons.ordered(sources(first, member), NAMES, (0, 1), part)
    wanted = torch.from_numpy(first[part]).flatten()
    for start in range(len(wanted)):
        for stop in range(start + 1, len(wanted) + 1):
            into = torch.full((stop - start,), torch.nan)
            source.fill(fetch, start, into)
            assert torch.equal(into, wanted[start:stop])


def test_noise_and_other_lengths_do_not_hide_the_order():
    """Each row counts at length 1, so that a large matrix does not decide alone."""
    first, order = expert(3, inner=40, hidden=16), np.random.default_rng(4).permutation(40)
    noise = expert(5, inner=40, hidden=16)
    scales = {GATE: 1.0, UP: 100.0, DOWN: 0.01}
    near = {part: scales[part] * (first[part] + 0.2 * noise[part]) for part in PARTS}
    member = {GATE: near[GATE][order], UP: near[UP][order], DOWN: near[DOWN][:, order]}
    source = MatchedNeurons(PARTS).ordered(sources(first, member), NAMES, (0, 1), GATE)
    assert source.order.index(fetch).tolist() == np.argsort(order).tolist()


def test_the_first_stays_as_it_lies():
    read = sources(expert(1), expert(2))
    assert MatchedNeurons(PARTS).ordered(read, NAMES, (0, 0), UP) is read(NAMES[0, UP])
