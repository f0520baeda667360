"""Gates from embeddings: by torch's own sums, by hand, and what is refused."""

import numpy as np
import pytest
import torch

from merge_ops.calibration import embed_gates
from merge_ops.calibration.embedded_gates import _direction, _sum_of_rows
from merge_ops.checkpoints import FolderSource, open_checkpoint
from merge_ops.errors import StatisticsError
from tests.models import checkpoint_factory as factory

SHAPES = ((1, 1), (1, 64), (3, 96), (5, 8), (15, 31), (16, 32), (17, 40), (33, 5), (40, 2048),
          (100, 33), (300, 128), (1100, 64))  # fmt: skip


@pytest.mark.parametrize(("rows", "columns"), SHAPES)
def test_sums_are_torchs_bit_for_bit(rows: int, columns: int):
    values = np.random.default_rng(rows).standard_normal((rows, columns)).astype(np.float32)
    wanted = torch.from_numpy(values[None]).sum(dim=1)[0]
    assert torch.equal(torch.from_numpy(_sum_of_rows(values)), wanted)


@pytest.mark.parametrize("columns", [8, 64, 896, 4096])
def test_lengths_are_torchs_bit_for_bit(columns: int):
    values = np.random.default_rng(columns).standard_normal(columns).astype(np.float32)
    tensor = torch.from_numpy(values)
    wanted = tensor / tensor.norm(p=2, dim=-1, keepdim=True).clamp(min=1e-8)
    assert torch.equal(torch.from_numpy(_direction(values)), wanted)


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16, torch.float32])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    shape = factory.Shape("llama", layers=2, dtype=request.param)
    folder = tmp_path_factory.mktemp("base")
    factory.write_checkpoint(folder, factory.base_tensors(shape, 3), shape)
    return open_checkpoint("base", FolderSource(folder)), factory.read_tensors(folder)


def test_rows_are_sums_of_embeddings_at_length_1(base):
    model, tensors = base
    embedding = tensors["model.embed_tokens.weight"].double()
    gates = embed_gates(model, [([[5, 6, 5], [7]], [[8, 9]]), ([[1]], [])])
    assert sorted(gates) == [0, 1]
    assert np.array_equal(gates[0], gates[1])
    positive, negative = embedding[[5, 6, 5, 7]].sum(dim=0), embedding[[8, 9]].sum(dim=0)
    first = positive / positive.norm() - negative / negative.norm()
    wanted = torch.stack([first / first.norm(), embedding[1] / embedding[1].norm()])
    torch.testing.assert_close(torch.from_numpy(gates[0]).double(), wanted, rtol=1e-5, atol=1e-7)


def test_a_token_without_a_row_and_a_model_without_embeddings_are_refused(base):
    model, tensors = base
    rows = len(tensors["model.embed_tokens.weight"])
    with pytest.raises(StatisticsError, match=f"has {rows} rows in .*none for token {rows} of a"):
        embed_gates(model, [([[1, rows]], [])])
    del (others := dict(model.tensors))["model.embed_tokens.weight"]
    other = open_checkpoint("other", model.source)
    object.__setattr__(other, "tensors", others)
    with pytest.raises(StatisticsError, match=r"has no model\.embed_tokens\.weight of floats"):
        embed_gates(other, [([[1]], [])])
