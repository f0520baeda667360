"""Protections keep the function, are undone bit for bit, and by the public base alone nearly so."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from merge_ops.checkpoints import Checkpoint, open_checkpoint
from merge_ops.checkpoints.names.ties import find_source
from merge_ops.errors import CompatibilityError, SettingsError
from merge_ops.stream.block_reader import fetch_stored, read_values
from merge_ops.symmetries import read_anatomy, transformed
from merge_ops.symmetries.aligning import align
from merge_ops.symmetries.keys import KINDS, key_from_json, new_key, symmetry_of
from merge_ops.symmetries.monomial import Monomial
from tests.models.checkpoint_factory import LLAMA, QWEN2, write_family, write_json

SHAPES = {"llama": LLAMA, "qwen2": QWEN2}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base and an expert of each kind, in bfloat16."""
    roots = {}
    for name, shape in SHAPES.items():
        roots[name] = tmp_path_factory.mktemp(name)
        write_family(roots[name], dataclasses.replace(shape, dtype=torch.bfloat16), spread=1e-3)
    return roots


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(str(folder))


def values(model: Checkpoint) -> dict[str, torch.Tensor]:
    """Every tensor as it is read, float32, in its shape."""
    found = {}
    for name, entry in model.tensors.items():
        source = find_source(model, name)
        assert source is not None
        found[name] = read_values(source, 0, entry.count).reshape(entry.shape)
    return found


def logits(model: Checkpoint, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(**dict(model.config))
    config._attn_implementation = "eager"
    live = AutoModelForCausalLM.from_config(config).to(dtype)
    missing, unexpected = live.load_state_dict(values(model), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    with torch.no_grad():
        return live(input_ids=torch.arange(3, 40)[None]).logits[0]


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("protection", [*KINDS, "all"])
def test_a_protection_keeps_the_function(folders: dict[str, Path], kind: str, protection: str):
    model = opened(folders[kind] / "expert-1")
    key = new_key(tuple(KINDS) if protection == "all" else (protection,))
    changed = transformed(model, symmetry_of(key, model))
    before, after = logits(model), logits(changed)
    # Norms are computed in float32 whatever the model's dtype.
    assert float((before - after).abs().max()) < 3e-6 * float(before.abs().max())
    changed_values = values(changed)
    assert not all(torch.equal(value, changed_values[n]) for n, value in values(model).items())


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_its_owner_undoes_it_bit_for_bit(folders: dict[str, Path], kind: str):
    model = opened(folders[kind] / "expert-1")
    key = new_key()
    symmetry = symmetry_of(key_from_json(key.to_json(), "key.json"), model)
    assert symmetry.is_exact
    restored = transformed(transformed(model, symmetry), symmetry.inverse())
    for name, value in values(model).items():
        assert torch.equal(values(restored)[name].view(torch.int32), value.view(torch.int32)), name


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_the_public_base_undoes_it_without_a_key(folders: dict[str, Path], kind: str):
    base, model = (opened(folders[kind] / name) for name in ("base", "expert-1"))
    changed = transformed(model, symmetry_of(new_key(), model))
    found = align(base, changed, fetch_stored)
    assert found.helped
    assert found.before > 1.0 > 0.1 > found.after
    restored = values(transformed(changed, found.symmetry))
    for name, value in values(model).items():
        assert torch.equal(restored[name], value), name


def test_a_model_that_is_not_changed_is_left_as_it_is(folders: dict[str, Path]):
    base, model = (opened(folders["llama"] / name) for name in ("base", "expert-1"))
    found = align(base, model, fetch_stored)
    assert found.changed == ()
    assert not found.symmetry.changes
    assert not found.helped
    assert found.before == found.after


def test_blocks_of_any_length_give_the_same_bits(folders: dict[str, Path]):
    model = opened(folders["llama"] / "expert-1")
    changed = transformed(model, symmetry_of(new_key(), model))
    for name in ("model.layers.1.self_attn.o_proj.weight", "model.layers.0.mlp.up_proj.weight"):
        source = changed.overlays[name]
        whole = read_values(source, 0, 4096)
        parts = [read_values(source, at, min(71, 4096 - at)) for at in range(0, 4096, 71)]
        assert torch.equal(torch.cat(parts), whole)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_a_monomial_is_undone_by_its_inverse(count: int, seed: int):
    draw = np.random.default_rng(seed)
    first, second = (
        Monomial(draw.permutation(count), np.ldexp(1.0, draw.integers(-3, 4, count)))
        for _ in range(2)
    )
    assert first.then(first.inverse()).is_identity
    both, x = first.then(second), draw.normal(size=count)
    step = first.scale * x[first.index]
    assert np.array_equal(both.scale * x[both.index], second.scale * step[second.index])


def test_a_kind_of_decoder_that_is_not_known_is_refused(folders: dict[str, Path], tmp_path: Path):
    import shutil

    folder = shutil.copytree(folders["llama"] / "base", tmp_path / "other")
    config = {**LLAMA.config(), "model_type": "gemma2"}
    write_json(folder / "config.json", config)
    with pytest.raises(
        CompatibilityError, match="has model_type 'gemma2'; known symmetries: llama"
    ):
        read_anatomy(opened(folder))


def test_no_kinds_and_unknown_ones_are_refused():
    with pytest.raises(SettingsError, match=r"holds 'mpl'.*Did you mean 'mlp'"):
        new_key(["mpl"])
    with pytest.raises(SettingsError, match="is empty"):
        new_key([])
    with pytest.raises(SettingsError, match="is no protection key of version 1"):
        key_from_json({"protection_key": 1, "secret": "00", "kinds": ["mlp"]}, "key.json")


@pytest.mark.parametrize("kind", ["qwen3", "mistral"])
def test_other_kinds_of_decoders_keep_their_function(kind: str, tmp_path: Path):
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    widths = {"hidden_size": 32, "intermediate_size": 48, "head_dim": 16, "vocab_size": 264}
    config = AutoConfig.for_model(kind, **sizes, **widths, tie_word_embeddings=False)
    torch.manual_seed(3)
    live = AutoModelForCausalLM.from_config(config)
    tensors = {
        name: (value + 0.1 * torch.randn_like(value)).contiguous()
        for name, value in live.state_dict().items()
    }
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    write_json(tmp_path / "config.json", config.to_dict())
    model = opened(tmp_path)
    changed = transformed(model, symmetry_of(new_key(), model))
    before, after = logits(model), logits(changed)
    assert float((before - after).abs().max()) < 3e-6 * float(before.abs().max())
