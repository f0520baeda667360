"""Masks and scales of EMR-Merging: what is restored from them is the paper's formula."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from merge_ops.checkpoints.files.byte_sources import FolderSink, FolderSource
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import (
    CheckpointError,
    CompatibilityError,
    MissingModelError,
    NonFiniteError,
)
from merge_ops.jobs.emr_masks import MASKS_FILE, open_masks, restore, write_masks
from tests.merges.merging import merge_in_process
from tests.models import checkpoint_factory as factory

SHAPE = replace(factory.QWEN2, layers=2, hidden=128, vocabulary=1400, tied=False)
NAMES = ("e1", "e2", "e3")


def opened(folder, name="base"):
    return open_checkpoint(name, FolderSource(Path(folder)))


def emr(family, out, experts=3):
    models = "".join(f"  - model: {folder}\n" for folder in family.experts[:experts])
    out.mkdir()
    config = out / "emr.yaml"
    config.write_text(f"merge_method: emr\nbase_model: {family.base}\nmodels:\n{models}")
    return merge_in_process(config, out / "merged")


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    return factory.write_family(tmp_path_factory.mktemp("emr"), SHAPE, experts=3, spread=0.05)


@pytest.fixture(scope="module")
def made(family, tmp_path_factory):
    """The folder of the masks, their scales, and the merged checkpoint."""
    out = tmp_path_factory.mktemp("masks")
    experts = [opened(each, name) for each, name in zip(family.experts, NAMES, strict=True)]
    scales = write_masks(opened(family.base), experts, FolderSink(out))
    return out, scales, emr(family, out / "emr")


def formula(family):
    """base, τ and every expert's mask and scale, in float64 on the float32 task vectors."""
    base = factory.read_tensors(family.base)
    tuned = [factory.read_tensors(folder) for folder in family.experts]
    merged, masks = {}, [{} for _ in tuned]
    before, after = [0.0] * len(tuned), [0.0] * len(tuned)
    for name, origin in base.items():
        deltas = [(each[name] - origin).double() for each in tuned]
        sign = torch.where(sum(deltas, torch.zeros(())) >= 0, 1.0, -1.0)
        merged[name] = sign * torch.stack([(d * sign).clamp(min=0) for d in deltas]).amax(dim=0)
        for number, delta in enumerate(deltas):
            masks[number][name] = delta * merged[name] > 0
            before[number] += float(delta.abs().sum())
            after[number] += float((merged[name] * masks[number][name]).abs().sum())
    return base, merged, masks, [b / a for b, a in zip(before, after, strict=True)]


def test_masks_and_scales_are_those_of_the_paper(family, made):
    out, scales, _ = made
    base, _, expected, wanted = formula(family)
    masks = open_masks(FolderSource(out))
    assert masks.experts == NAMES
    assert masks.rescale == scales
    assert scales == pytest.approx(wanted, rel=1e-12)
    for name, origin in base.items():
        for number in range(3):
            found = torch.as_tensor(masks.bits(name, number, 0, origin.numel()))
            assert torch.equal(found, expected[number][name].flatten()), name


def test_restored_is_base_plus_scale_mask_and_task_vector(family, made, tmp_path):
    out, _, merged = made
    base, unified, masks, scales = formula(family)
    for number, name in enumerate(NAMES):
        place = FolderSink(tmp_path / name)
        restore(opened(family.base), opened(merged), open_masks(FolderSource(out)), name, place)
        found = factory.read_tensors(tmp_path / name)
        assert sorted(found) == sorted(base)
        for tensor, origin in base.items():
            expected = origin.double() + scales[number] * masks[number][tensor] * unified[tensor]
            far = (found[tensor].double() - expected).abs().max() / expected.abs().max()
            assert far < 1e-6, (tensor, far.item())
    restored = opened(tmp_path / "e1")
    assert restored.config == opened(merged).config
    assert "tokenizer.json" in restored.files
    assert "README.md" not in restored.files


def test_the_size_of_a_task_vector_is_kept(family, made, tmp_path):
    """Σ|scaleᵢ maskᵢ τ| = Σ|δᵢ|: that is what the scale is for."""
    out, _, merged = made
    masks = open_masks(FolderSource(out))
    restore(opened(family.base), opened(merged), masks, "e2", FolderSink(tmp_path))
    base, expert, found = (
        factory.read_tensors(folder) for folder in (family.base, family.experts[1], tmp_path)
    )

    def size(of):
        return sum(float((of[name] - base[name]).double().abs().sum()) for name in base)

    assert size(found) == pytest.approx(size(expert), rel=1e-6)


def test_a_single_expert_is_restored_as_it_is(family, tmp_path):
    base, expert = opened(family.base), opened(family.experts[0], "alone")
    scales = write_masks(base, [expert], FolderSink(tmp_path / "masks"))
    assert scales == (1.0,)
    merged = opened(emr(family, tmp_path / "emr", experts=1))
    masks = open_masks(FolderSource(tmp_path / "masks"))
    restore(base, merged, masks, "alone", FolderSink(tmp_path / "restored"))
    found = factory.read_tensors(tmp_path / "restored")
    for name, tensor in factory.read_tensors(family.experts[0]).items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=3e-7)


def test_an_expert_without_changes_has_an_empty_mask_and_scale_one(family, tmp_path):
    base, same = opened(family.base), opened(family.base, "same")
    scales = write_masks(base, [same, opened(family.experts[0], "other")], FolderSink(tmp_path))
    assert scales[0] == 1.0
    masks = open_masks(FolderSource(tmp_path))
    assert not masks.bits("model.norm.weight", 0, 0, 128).any()
    assert masks.bits("model.norm.weight", 1, 0, 128).sum() > 120


def test_one_bit_for_each_entry_in_a_file_that_safetensors_opens(made):
    out, scales, merged = made
    entries = sum(entry.count for entry in opened(merged).tensors.values())
    size = (out / MASKS_FILE).stat().st_size
    assert 3 * entries / 8 < size < 3 * entries / 8 + 8192
    with safe_open(out / MASKS_FILE, framework="pt") as file:
        assert file.get_tensor("rescale").tolist() == list(scales)
        assert file.get_tensor("model.norm.weight").shape == (3 * 128 // 8,)
        assert file.metadata()["experts"] == '["e1", "e2", "e3"]'


def test_an_unknown_expert_is_named(family, made, tmp_path):
    out, _, merged = made
    masks = open_masks(FolderSource(out))
    with pytest.raises(MissingModelError, match=r"no mask of 'e4'.*Known: e1, e2, e3"):
        restore(opened(family.base), opened(merged), masks, "e4", FolderSink(tmp_path))


def test_another_model_is_refused(made, tmp_path):
    out, _, merged = made
    other = factory.write_family(tmp_path / "o", replace(SHAPE, vocabulary=1500), experts=1).base
    masks = open_masks(FolderSource(out))
    with pytest.raises(
        CheckpointError,
        match=r"'base' has another size for tensor 'lm_head.weight' of .*; give the base",
    ):
        restore(opened(other), opened(merged), masks, "e1", FolderSink(tmp_path / "out"))


def test_a_folder_without_masks_is_refused(family, made, tmp_path):
    with pytest.raises(MissingModelError, match=r"emr_masks.safetensors is not there"):
        open_masks(FolderSource(family.base))
    weights = (made[2] / "model.safetensors").read_bytes()
    (tmp_path / MASKS_FILE).write_bytes(weights)
    with pytest.raises(CheckpointError, match="holds no EMR masks"):
        open_masks(FolderSource(tmp_path))


def test_nan_has_no_mask(family, tmp_path):
    spoiled = factory.spoiled(family.experts[0], tmp_path / "bad", factory.put_value)
    with pytest.raises(NonFiniteError, match="'bad' or its base holds NaN"):
        write_masks(opened(family.base), [opened(spoiled, "bad")], FolderSink(tmp_path / "out"))


def test_a_head_that_the_base_has_not_is_refused(tmp_path):
    """The masks have no place for it, so the expert would not come back."""
    tied = replace(SHAPE, tied=True)
    base = factory.write_checkpoint(tmp_path / "base", factory.base_tensors(tied), tied)
    own = factory.expert_tensors(factory.base_tensors(SHAPE), 1)
    loose = factory.write_checkpoint(tmp_path / "loose", own, SHAPE)
    with pytest.raises(CompatibilityError, match=r"e1 has a 'lm_head.weight' of its own, which is"):
        write_masks(opened(base), [opened(loose, "e1")], FolderSink(tmp_path / "masks"))
