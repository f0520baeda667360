"""Methods that mergekit lacks equal their formula in float64, through the stream in small blocks.

The reference sorts whole tensors where ours selects block by block. Its task vectors are those of
the stream (expert − base in float32); everything after that is float64.
"""

from dataclasses import replace

import pytest
import torch

from merge_ops.methods.blockmerge import share_at
from merge_ops.stream.stream import StreamSettings
from tests.merges.merging import merge_in_process
from tests.models.checkpoint_factory import QWEN2, read_tensors, write_family

SHAPE = replace(QWEN2, layers=2, hidden=128, vocabulary=1400, tied=False)
BLOCK = 1 << 16


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return write_family(tmp_path_factory.mktemp("float64"), SHAPE, experts=3, spread=0.05)


def merged(family, out, method, parameters, experts=3):
    models = "".join(f"  - model: {folder}\n" for folder in family.experts[:experts])
    text = (
        f"merge_method: {method}\nbase_model: {family.base}\n"
        f"models:\n{models}parameters: {parameters}\n"
    )
    config = out / "recipe.yaml"
    config.write_text(text)
    settings = StreamSettings(threads=2, block=BLOCK, device="cpu")
    return read_tensors(merge_in_process(config, out / "merged", settings))


def assert_merges_to(found, family, formula, experts=3, slack=None):
    """`formula(deltas)` on float64 task vectors of shape (experts, n), for every tensor.

    Equal to 1e-6 of the largest value; `slack(deltas)` says by how much more an entry may differ
    whose value the rounding of float32 inputs to the last step does not determine any better.
    """
    base = read_tensors(family.base)
    tuned = [read_tensors(folder) for folder in family.experts[:experts]]
    assert any(tensor.numel() > 2 * BLOCK for tensor in base.values())
    for name, origin in base.items():
        deltas = torch.stack([(each[name] - origin).flatten() for each in tuned]).double()
        expected = (origin.double().flatten() + formula(deltas)).reshape(origin.shape)
        far = (found[name].double() - expected).abs().flatten()
        more = slack(deltas) if slack else torch.zeros_like(far)
        assert (more < 1e-3).float().mean() > 0.98
        wrong = far > 1e-6 * expected.abs().max() + more
        assert not wrong.any(), (name, int(wrong.sum()), far[wrong].max().item())


def agreed(merged, deltas, tall_lambda, consensus):
    masks = deltas.abs() >= tall_lambda * (merged - deltas).abs()
    return merged * (masks.sum(dim=0) >= consensus)


@pytest.mark.parametrize("consensus", [1, 2, 3])
def test_consensus_ta(family, tmp_path, consensus):
    parameters = f"{{consensus: {consensus}, tall_lambda: 0.55, weight: 0.7, lambda: 1.3}}"
    found = merged(family, tmp_path, "consensus_ta", parameters)
    assert_merges_to(found, family, lambda d: 1.3 * agreed(0.7 * d.sum(dim=0), d, 0.55, consensus))


def test_consensus_ties(family, tmp_path):
    def formula(deltas):
        k = max(1, int(0.2 * deltas.shape[1]))
        least = deltas.abs().sort(dim=1, descending=True).values[:, k - 1 : k]
        trimmed = deltas * (deltas.abs() >= least)
        sign = torch.where(trimmed.sum(dim=0) >= 0, 1.0, -1.0)
        together = (trimmed * (trimmed.sign() == sign)).sum(dim=0)
        return agreed(together, deltas, 0.4, 2)

    found = merged(family, tmp_path, "consensus_ties", "{density: 0.2}")
    assert_merges_to(found, family, formula)


@pytest.mark.parametrize("density", [0.05, 0.1, 0.7, 1.0])
def test_pcb(family, tmp_path, density):
    def shares_of(deltas):
        """As the authors' code has it, without its clipping of outliers; one tensor at a time."""
        count, n = deltas.shape
        magnitude = deltas.abs()
        intra = torch.exp(count * normalized(magnitude) ** 2)
        claims = intra * torch.tanh(deltas * deltas.sum(dim=0))
        least = claims.sort(dim=1).values[:, int(n * (1 - density))].unsqueeze(1)
        return normalized(torch.maximum(claims, least))

    def formula(deltas):
        shares = shares_of(deltas)
        return 1.2 * (deltas * shares).sum(dim=0) / shares.sum(dim=0).clamp(min=1e-12)

    def slack(deltas):
        """A share is the distance to a threshold, known to some 1e-6; the merged entry is a mean
        weighted by shares, so where all are near 0 it may be anything between the experts and 0."""
        at_threshold = shares_of(deltas).sum(dim=0)
        reach = deltas.abs().max(dim=0).values
        kept = (at_threshold > 0) & (at_threshold < 1)
        return torch.where(kept, (1e-6 / at_threshold).clamp(max=2.0) * reach, 0.0)

    found = merged(family, tmp_path, "pcb", f"{{density: {density}, lambda: 1.2}}")
    assert_merges_to(found, family, formula, slack=slack)


def normalized(values):
    least, most = values.aminmax(dim=1, keepdim=True)
    return (values - least) / (most - least)


def test_emr(family, tmp_path):
    def formula(deltas):
        sign = torch.where(deltas.sum(dim=0) >= 0, 1.0, -1.0)
        return sign * (deltas * sign).clamp(min=0).max(dim=0).values

    assert_merges_to(merged(family, tmp_path, "emr", "{}"), family, formula)


def test_expo(family, tmp_path):
    found = merged(family, tmp_path, "expo", "{extrapolation: 0.3}", experts=1)
    assert_merges_to(found, family, lambda deltas: 1.3 * deltas[0], experts=1)


def test_blockmerge(family, tmp_path):
    found = merged(family, tmp_path, "blockmerge", "{gradient_values: [0, 1, 0.25]}", experts=1)
    layer = [
        "input_layernorm.weight", "mlp.down_proj.weight", "mlp.gate_proj.weight",
        "mlp.up_proj.weight", "post_attention_layernorm.weight", "self_attn.k_proj.bias",
        "self_attn.k_proj.weight", "self_attn.o_proj.weight", "self_attn.q_proj.bias",
        "self_attn.q_proj.weight", "self_attn.v_proj.bias", "self_attn.v_proj.weight",
    ]  # fmt: skip
    order = [
        "model.embed_tokens.weight",
        *(f"model.layers.{number}.{name}" for number in range(2) for name in layer),
        "model.norm.weight",
        "lm_head.weight",
    ]
    base, other = read_tensors(family.base), read_tensors(family.experts[0])
    assert sorted(order) == sorted(base)
    for position, name in enumerate(order):
        share = share_at((0.0, 1.0, 0.25), position, len(order))
        expected = (1 - share) * base[name].double() + share * other[name].double()
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-6, atol=1e-7)
