"""Sizes that a config claims are compared with the tensors, before anything is built from them."""

from pathlib import Path

import pytest

from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.checkpoints.folders.folder_verdict import read_folder
from merge_ops.checkpoints.opening import open_checkpoint
from merge_ops.errors import CheckpointError
from tests.models import checkpoint_factory as factory


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "m"
    return factory.write_checkpoint(made, factory.base_tensors(factory.LLAMA), factory.LLAMA)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_hidden_layers": 100_000}, "num_hidden_layers is 100000, and there are"),
        ({"num_hidden_layers": 15}, "num_hidden_layers is 15, and the tensors are those of"),
        ({"vocab_size": 10**9}, "vocab_size is 1000000000, and the longest side of any tensor is"),
        ({"hidden_size": 10**9}, "hidden_size is 1000000000, and the longest side"),
        ({"hidden_size": 37}, "hidden_size is 37, and no tensor has a side of that"),
        ({"intermediate_size": 10**299}, "intermediate_size is 1000"),
        ({"num_experts": 10**6}, "num_experts is 1000000, and the longest side"),
        ({"n_routed_experts": 10**6}, "n_routed_experts is 1000000, and the longest side"),
        ({"num_attention_heads": 10**7}, "num_attention_heads is 10000000, and the longest"),
        ({"n_positions": 10**8}, "n_positions is 100000000, and the longest side"),
        ({"max_position_embeddings": 10**15}, "at most 2147483648 are possible"),
        ({"text_config": {"num_hidden_layers": 10**7}}, "text_config.num_hidden_layers is 1000"),
        ({"vision_config": {"hidden_size": [2, 10**9]}}, "vision_config.hidden_size is 1000000000"),
        ({"num_hidden_layers": -1}, "num_hidden_layers is -1; it must be a whole number from 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers is True; it must be a whole number"),
        ({"vocab_size": 32.5}, "vocab_size is 32.5; it must be a whole number"),
        ({"vocab_size": "1000"}, "vocab_size is '1000'; it must be a whole number"),
        ({"head_dim": float("inf")}, "head_dim is inf; it must be a whole number"),
        ({"num_key_value_heads": [4, "4"]}, "num_key_value_heads is '4'; it must be a whole"),
    ],
)
def test_a_claim_that_no_tensor_explains_is_refused(
    folder: Path, changes: dict[str, object], told: str
) -> None:
    factory.edit_config(folder, **changes)
    assert any(told in fault for fault in read_folder(FolderSource(folder)).verdict.faults)
    with pytest.raises(CheckpointError, match=r"config\.json: "):
        open_checkpoint(str(folder))


@pytest.mark.parametrize(
    "changes",
    [
        {"num_key_value_heads": None, "n_inner": None},
        {"layer_types": ["full_attention"] * 4},
        {"max_position_embeddings": 10_485_760},
        {"time_step_limit": [0.0, float("inf")]},
        {"num_experts": 0, "moe_intermediate_size": 0},
        {"hidden_act": "silu", "dim": "mean"},
    ],
)
def test_what_configs_hold_is_no_fault(folder: Path, changes: dict[str, object]) -> None:
    factory.edit_config(folder, **changes)
    assert read_folder(FolderSource(folder)).verdict.faults == ()
