import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from eval_ops.errors import CheckpointLoadError
from eval_ops.running.live_model import LiveModel

WriteCheckpoint = Callable[..., Path]


def weights(live: LiveModel, folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in live.load(folder).model.state_dict().items()}


def test_exchanging_weights_equals_loading_afresh(checkpoints: list[Path]) -> None:
    live = LiveModel()
    model, _ = live.load(checkpoints[0])
    assert live.exchange(checkpoints[1])
    fresh = weights(LiveModel(), checkpoints[1])
    state = model.state_dict()
    assert state.keys() == fresh.keys()
    assert all(torch.equal(state[name], fresh[name]) for name in fresh)
    assert not model.training


def test_what_is_loaded_stays_when_its_file_is_written_over(
    checkpoints: list[Path], tmp_path: Path
) -> None:
    """Weights that lie in memory are written over by the next candidate."""
    folder, live = shutil.copytree(checkpoints[0], tmp_path / "model"), LiveModel()
    before = weights(live, folder)
    file = folder / "model.safetensors"
    with file.open("r+b") as handle:  # in place: no new file
        handle.write(bytes(file.stat().st_size))
    assert live._loaded is not None
    now = live._loaded.model.state_dict()
    assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
    assert {tensor.data_ptr() % 64 for tensor in now.values()} == {0}


def test_sharded_checkpoints_are_exchanged_too(checkpoints: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(checkpoints[1], tmp_path / "sharded")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    shards = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
    for shard in set(shards.values()):
        part = {name: tensor for name, tensor in tensors.items() if shards[name] == shard}
        save_file(part, folder / shard, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    live = LiveModel()
    live.load(checkpoints[0])
    assert live.exchange(folder)
    index["weight_map"]["model.norm.weight"] = "../model.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointLoadError, match=r"lies outside the checkpoint's folder"):
        live.exchange(folder)


def test_nothing_is_exchanged_where_the_checkpoint_differs_in_kind(
    checkpoints: list[Path], tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    live = LiveModel()
    assert not live.exchange(checkpoints[0])
    before = weights(live, checkpoints[0])
    half = shutil.copytree(checkpoints[1], tmp_path / "half")
    tensors = load_file(half / "model.safetensors")
    save_file({n: t.half() for n, t in tensors.items()}, half / "model.safetensors")
    more = shutil.copytree(checkpoints[1], tmp_path / "more")
    save_file(tensors | {"extra": torch.zeros(1)}, more / "model.safetensors")
    less = shutil.copytree(checkpoints[1], tmp_path / "less")
    del tensors["model.norm.weight"]
    save_file(tensors, less / "model.safetensors")
    others = [
        write_checkpoint(tmp_path / "llama", 0, "llama"),
        write_checkpoint(tmp_path / "deeper", 0, num_hidden_layers=3),
        write_checkpoint(tmp_path / "untied", 0, tie_word_embeddings=False),
        half,
        more,
        less,
    ]
    for other in others:
        assert not live.exchange(other), other.name
    words = shutil.copytree(checkpoints[1], tmp_path / "words")
    (words / "tokenizer_config.json").write_text('{"eos_token": "!"}')
    assert not live.exchange(words)
    state = live._loaded.model.state_dict()  # type: ignore[union-attr]
    assert all(torch.equal(state[name], before[name]) for name in before)


def test_untied_checkpoints_are_exchanged(
    tmp_path: Path, write_checkpoint: WriteCheckpoint
) -> None:
    one, two = (
        write_checkpoint(tmp_path / str(seed), seed, "llama", tie_word_embeddings=False)
        for seed in (0, 1)
    )
    live = LiveModel()
    model, _ = live.load(one)
    assert live.exchange(two)
    fresh = weights(LiveModel(), two)
    assert torch.equal(model.state_dict()["lm_head.weight"], fresh["lm_head.weight"])


def test_a_truncated_file_leaves_no_model(checkpoints: list[Path], tmp_path: Path) -> None:
    broken = shutil.copytree(checkpoints[1], tmp_path / "broken")
    data = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(data[:-100])
    live = LiveModel()
    live.load(checkpoints[0])
    with pytest.raises(CheckpointLoadError, match=r"broken: cannot be loaded as a causal language"):
        live.exchange(broken)
    assert not live.exchange(checkpoints[1])
    with pytest.raises(CheckpointLoadError, match=r"broken: cannot be loaded as a causal language"):
        live.load(broken)


def test_what_is_no_checkpoint(checkpoints: list[Path], tmp_path: Path) -> None:
    live = LiveModel()
    with pytest.raises(CheckpointLoadError, match=r"holds no config\.json"):
        live.load(tmp_path)
    bare = shutil.copytree(checkpoints[0], tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(CheckpointLoadError, match=r"bare: cannot be loaded"):
        live.load(bare)
    partial = shutil.copytree(checkpoints[0], tmp_path / "partial")
    tensors = load_file(partial / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointLoadError, match=r"1 tensors .* example model\.norm\.weight"):
        live.load(partial)
