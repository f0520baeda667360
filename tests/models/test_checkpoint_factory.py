"""The tiny checkpoints are what other tests take them for."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.models.checkpoint_factory import (
    BFLOAT16_QWEN2,
    LLAMA,
    QWEN2,
    Shape,
    read_tensors,
    write_family,
)


def test_task_vectors_of_two_experts_are_unrelated(tmp_path: Path) -> None:
    base, experts = write_family(tmp_path, LLAMA, experts=2)
    before = read_tensors(base)
    name = "model.layers.0.mlp.up_proj.weight"
    one, two = (read_tensors(folder)[name] - before[name] for folder in experts)
    for pair in ((one, two), (one, before[name]), (two, before[name])):
        cosine = torch.nn.functional.cosine_similarity(*(each.flatten() for each in pair), dim=0)
        assert abs(cosine) < 0.07
    assert one.std().item() == pytest.approx(2e-3, rel=0.05)


def test_sharding_changes_no_value(tmp_path: Path) -> None:
    whole, _ = write_family(tmp_path / "1", QWEN2, experts=0)
    parts, _ = write_family(tmp_path / "3", QWEN2, experts=0, shards=3)
    assert len(list(parts.glob("*.safetensors"))) == 3
    first, second = read_tensors(whole), read_tensors(parts)
    assert sorted(first) == sorted(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("shape", [LLAMA, QWEN2, BFLOAT16_QWEN2, replace(LLAMA, tied=True)])
@pytest.mark.parametrize("shards", [1, 2])
def test_transformers_loads_them(tmp_path: Path, shape: Shape, shards: int) -> None:
    folder, _ = write_family(tmp_path, shape, experts=0, shards=shards)
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    assert model.dtype == shape.dtype
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("茯苓 poria").input_ids
    assert tokenizer.decode(ids) == "茯苓 poria"
    assert model(torch.tensor([ids])).logits.shape == (1, len(ids), shape.vocabulary)
