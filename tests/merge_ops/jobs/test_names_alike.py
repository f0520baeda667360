"""Task vectors and extracted adapters see two spellings of one model as one model."""

import pytest
import torch

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CompatibilityError
from merge_ops.jobs.extraction_plan import ExtractionSettings, plan_extraction
from merge_ops.jobs.statistics import interference, task_vector_statistics
from tests.models import checkpoint_factory as factory


def spelled(tmp_path, base_prefix="", **extra):
    """A base whose names have a prefix, and an expert that also holds `extra`."""
    base, (expert,) = factory.write_family(tmp_path, factory.LLAMA, experts=1)
    tensors = factory.read_tensors(base)
    named = {base_prefix + name: each for name, each in tensors.items()}
    factory.rewrite_weights(base, named)
    factory.rewrite_weights(expert, factory.read_tensors(expert) | extra)
    return [open_checkpoint(each.name, FolderSource(each)) for each in (base, expert)]


def test_statistics_of_two_spellings_are_those_of_one(tmp_path):
    for folder in ("plain", "other"):
        (tmp_path / folder).mkdir()
    plain = spelled(tmp_path / "plain")
    ids = {"model.position_ids": torch.arange(8)}
    other = spelled(tmp_path / "other", "language_model.", **ids)
    assert task_vector_statistics(*other).norm == task_vector_statistics(*plain).norm
    assert interference(other[0], [other[1]]) == interference(plain[0], [plain[1]])


def test_an_adapter_takes_the_names_with_the_prefix(tmp_path):
    base, expert = spelled(tmp_path, "transformer.")
    plan = plan_extraction(base, expert, ExtractionSettings(rank=2))
    assert all(module.startswith("transformer.model.layers.") for module in plan.ranks)


def test_an_adapter_cannot_keep_other_whole_numbers(tmp_path):
    base, expert = spelled(tmp_path, **{"model.table": torch.arange(4)})
    changed = factory.read_tensors(tmp_path / "base") | {"model.table": torch.ones(4).long()}
    factory.rewrite_weights(tmp_path / "base", changed)
    base = open_checkpoint("base", FolderSource(tmp_path / "base"))
    with pytest.raises(CompatibilityError, match=r"has other numbers in 'model.table' \(I64\)"):
        plan_extraction(base, expert, ExtractionSettings(rank=2))
