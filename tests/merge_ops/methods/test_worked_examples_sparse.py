"""Methods that select or mask entries, and blends by order, on numbers checked by hand."""

import math

import pytest

from merge_ops.checkpoints.names.depth import Position
from merge_ops.methods.blockmerge import Blend, BlockmergeParameters, blend_at, share_at
from merge_ops.methods.consensus import ConsensusTaParameters, ConsensusTiesParameters
from merge_ops.methods.emr import EmrParameters
from merge_ops.methods.expo import ExpoParameters
from merge_ops.methods.pcb import PcbParameters
from merge_ops.methods.sce import SceParameters
from tests.merge_ops.methods.test_worked_examples import merged

pytestmark = pytest.mark.usefixtures("arithmetic")


def test_sce():
    # variances [1, 0, 4, 1], 3 of them not zero, ⌊0.67·3⌋ = 2 kept: the 4 and the first 1.
    # mean squares of what is left, (9+4)/4 and (1+4)/4: weights 13/18 and 5/18.
    # both agree on 3 and 1: (13·3 + 5·1)/18; −2 + 2 = 0 elects plus, so only 2 counts
    out = merged("sce", [[3, 1, -2, 1], [1, 1, 2, -1]], SceParameters(0.67))
    assert out.tolist() == pytest.approx([22 / 9, 0, 2, 0])


def test_sce_of_everything():
    # weights 25/50 and 25/50
    out = merged("sce", [[3, 4], [5, 0]], SceParameters(1.0))
    assert out.tolist() == pytest.approx([4, 4])


def test_sce_of_small_changes_weighs_all_alike():
    # mean squares 1e-8/2 and 4e-8/2 sum to less than 1e-6
    out = merged("sce", [[1e-4, 0], [0, 2e-4]], SceParameters(1.0))
    assert out.tolist() == pytest.approx([1e-4, 2e-4])
    out = merged("sce", [[1e-4], [2e-4]], SceParameters(1.0))
    assert out.tolist() == pytest.approx([1.5e-4])


def test_sce_of_experts_that_do_not_differ_keeps_the_base():
    # no variance at all: ⌊0.9 · 0⌋ entries
    out = merged("sce", [[1, 2], [1, 2]], SceParameters(0.9))
    assert out.tolist() == [0, 0]


def consensus_ta(weight, tall_lambda, consensus, normalize=False, lambda_=1.0):
    return ConsensusTaParameters(weight, tall_lambda, consensus, normalize, lambda_)


def test_consensus_ta():
    # τ = [5, 4, 0.5]; |δ₁| ≥ 0.5·|τ − δ₁|: 4 ≥ 0.5, 0 < 2, 3 ≥ 1.25;
    # |δ₂| ≥ 0.5·|τ − δ₂|: 1 < 2, 4 ≥ 0, 2.5 ≥ 1.5. Both only at the last; λ = 2
    both = consensus_ta((1.0, 1.0), (0.5, 0.5), 2, lambda_=2.0)
    assert merged("consensus_ta", [[4, 0, 3], [1, 4, -2.5]], both).tolist() == [0, 0, 1]
    # with 0.25 for the second: 1 ≥ 1
    lower = consensus_ta((1.0, 1.0), (0.5, 0.25), 2)
    assert merged("consensus_ta", [[4, 0, 3], [1, 4, -2.5]], lower).tolist() == [5, 0, 0.5]


def test_consensus_ta_of_one_is_task_arithmetic_without_what_serves_nobody():
    # τ = 0.5·4 + 0.5·(−4) = 0, 4 ≥ 0.4·4; τ = 0.5·(1 + 1): 1 ≥ 0
    out = merged("consensus_ta", [[4, 1], [-4, 1]], consensus_ta((0.5, 0.5), (0.4, 0.4), 1))
    assert out.tolist() == [0, 1]
    # τ = 8 and −6: 8 ≥ 0, 6 ≥ 0.4·14; τ = 2: nobody else
    out = merged("consensus_ta", [[8, 2], [-6, 0]], consensus_ta((1.0, 0.0), (0.4, 0.4), 1))
    assert out.tolist() == [8, 2]


def test_consensus_ties():
    # the larger half of each: [4, 0, −3, 0], [0, 3, −3, 0]; agreeing ones added: τ = [4, 3, −6, 0];
    # 0.4·|τ − δ| of the whole δ₁ = [4, 1, −3, 0.5]: 0, 0.8, 1.2, 0.2; of δ₂ = [1.6, 3, −3, 0.2]:
    # 0.96, 0, 1.2, 0.08: all are served by both
    inputs = [[4, 1, -3, 0.5], [1.6, 3, -3, 0.2]]
    half = ((1.0, 1.0), (0.5, 0.5))
    out = merged("consensus_ties", inputs, ConsensusTiesParameters(*half, (0.4, 0.4), 2, False, 1))
    assert out.tolist() == [4, 3, -6, 0]
    # with 0.8: 1.6 < 1.92 and 1 < 1.6; 3 ≥ 2.4
    out = merged("consensus_ties", inputs, ConsensusTiesParameters(*half, (0.8, 0.8), 2, True, 0.5))
    assert out.tolist() == [0, 0, -1.5, 0]


def test_expo():
    # the expert and half its task vector more
    assert merged("expo", [[1, -2]], ExpoParameters(0.5)).tolist() == [1.5, -3]


def test_emr():
    # sums [4, −1, 0, 1] elect [+, −, +, +]; the largest of those that agree: 3, −3, 2, 2
    out = merged("emr", [[1, 2, -2, 2], [3, -3, 2, -1]], EmrParameters(1.0))
    assert out.tolist() == [3, -3, 2, 2]


def test_emr_is_zero_where_nobody_changed_anything():
    assert merged("emr", [[0, 1], [0, -3]], EmrParameters(0.5)).tolist() == [0, -1.5]


def test_pcb():
    # δ₁ = [3, 1, 2, 1]: u = [1, 0, ½, 0]; δ₂ = [1, 2, −1, 3]: u = [0, ½, 0, 1]; Σ = [4, 3, 1, 4].
    # β = exp(2u²)·tanh(δΣ); the top half is raised to the second largest claim and brought to
    # [0, 1], so of each expert only the largest claim is left: 3, and 3
    out = merged("pcb", [[3, 1, 2, 1], [1, 2, -1, 3]], PcbParameters((1.0, 1.0), (0.5, 0.5), 2.0))
    assert out.tolist() == pytest.approx([6, 0, 0, 6])


def test_pcb_shares_an_entry_by_the_claims():
    # everything takes part, the least claim of each counts 0
    d1, d2 = [2, 1, 0, 1], [1, 3, -1, 1]
    total = [3, 4, -1, 2]

    def shares(delta):
        least, most = min(map(abs, delta)), max(map(abs, delta))
        claims = [
            math.exp(2 * ((abs(x) - least) / (most - least)) ** 2) * math.tanh(x * s)
            for x, s in zip(delta, total, strict=True)
        ]
        return [(c - min(claims)) / (max(claims) - min(claims)) for c in claims]

    expected = [
        (3 * s1 * x1 + s2 * x2) / (s1 + s2) if s1 + s2 else 0
        for s1, x1, s2, x2 in zip(shares(d1), d1, shares(d2), d2, strict=True)
    ]
    out = merged("pcb", [d1, d2], PcbParameters((3.0, 1.0), (1.0, 1.0), 1.0))
    assert out.tolist() == pytest.approx(expected, rel=1e-5)


def test_pcb_where_all_claims_are_equal():
    # one entry: its claim is the least and the largest
    assert merged("pcb", [[2.0]], PcbParameters((1.0,), (0.1,), 1.0)).tolist() == [2]


def test_blockmerge():
    # 0.75·[4, 8] + 0.25·[8, 0]
    assert merged("blockmerge", [[4, 8], [8, 0]], Blend(0.25)).tolist() == [5, 6]


def test_blockmerge_sections():
    # two sections of ⌊7/2⌋ tensors, both ends included; the seventh takes the last value
    found = [share_at((0.0, 1.0, 0.5), position, 7) for position in range(7)]
    assert found == [0, 0.5, 1, 1, 0.75, 0.5, 0.5]
    assert [share_at((0.3,), position, 2) for position in range(2)] == [0.3, 0.3]
    # sections of one tensor start at their first value; fewer tensors than sections: the last value
    assert [share_at((0.0, 1.0, 0.5), position, 2) for position in range(2)] == [0, 1]
    assert share_at((0.0, 1.0, 0.5), 0, 1) == 0.5


@pytest.mark.parametrize(
    ("layer_only", "no_layers", "in_layer", "share"),
    [
        (False, False, True, 0.4),  # third of six
        (True, False, True, 1 / 3),  # second of four in layers
        (True, False, False, 0.0),
        (False, True, False, 1 / 3),
        (False, True, True, 0.0),
    ],
)
def test_blockmerge_of_layers_alone(layer_only, no_layers, in_layer, share):
    parameters = BlockmergeParameters((0.0, 1.0), layer_only, no_layers)
    found = blend_at(parameters, Position("t", 0.0, in_layer, 2, 6, 1, 4))
    assert found.share == pytest.approx(share)
