"""A config, and what is told of two that are compared."""

from merge_ops.checkpoints.checkpoint import Checkpoint
from merge_ops.checkpoints.files.byte_sources import FolderSource
from merge_ops.plans.agreement.config_agreement import config_cautions, config_faults

LLAMA = {
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
}


def model(name, config):
    return Checkpoint(name, FolderSource("/nowhere"), {}, config)


def told(ours, theirs):
    """The faults and cautions of an expert, as texts."""
    pair = model("base", ours), model("e1", theirs)
    return [str(each) for each in config_faults(*pair)], [
        str(each) for each in config_cautions(*pair)
    ]
