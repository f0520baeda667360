"""The sizes of checkpoints that the benchmarks use: Qwen2's shape, smaller and larger.

Nothing here imports torch (see processes.py).
"""

from dataclasses import dataclass
from math import prod
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """A Qwen2 model with tied embeddings."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int
    kv_heads: int = 2

    def config(self) -> dict[str, object]:
        """config.json."""
        return {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "vocab_size": self.vocabulary,
            "max_position_embeddings": 32768,
            "rms_norm_eps": 1e-6,
            "hidden_act": "silu",
            "tie_word_embeddings": True,
            "dtype": "bfloat16",
        }

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Every tensor of the checkpoint."""
        hidden, inner = self.hidden, self.intermediate
        kv = hidden // self.heads * self.kv_heads
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocabulary, hidden)
        }
        for layer in range(self.layers):
            at = f"model.layers.{layer}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes[f"{at}.{norm}.weight"] = (hidden,)
            for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
                shapes[f"{at}.self_attn.{name}_proj.weight"] = (rows, hidden)
                shapes[f"{at}.self_attn.{name}_proj.bias"] = (rows,)
            shapes[f"{at}.self_attn.o_proj.weight"] = (hidden, hidden)
            shapes[f"{at}.mlp.gate_proj.weight"] = (inner, hidden)
            shapes[f"{at}.mlp.up_proj.weight"] = (inner, hidden)
            shapes[f"{at}.mlp.down_proj.weight"] = (hidden, inner)
        shapes["model.norm.weight"] = (hidden,)
        return shapes

    @property
    def nbytes(self) -> int:
        """Bytes of the weights in bfloat16."""
        return 2 * sum(prod(shape) for shape in self.tensors().values())


SHAPES = {
    # 0.4 M parameters: for trying a benchmark, and for what a process takes without any volume.
    "tiny": Shape(layers=2, hidden=128, intermediate=256, heads=4, vocabulary=1000),
    "88M": Shape(layers=11, hidden=512, intermediate=2816, heads=8, vocabulary=64_000),
    # Qwen2-0.5B with a vocabulary of 64,000: 415 M parameters, 0.83 GB.
    "0.4B": Shape(layers=24, hidden=896, intermediate=4864, heads=14, vocabulary=64_000),
    # Qwen2-1.5B: 1,544 M parameters, 3.09 GB.
    "1.5B": Shape(layers=28, hidden=1536, intermediate=8960, heads=12, vocabulary=151_936),
}


def model_folder(root: Path, number: int) -> Path:
    """Where the base (0) and the experts (1, 2 …) lie."""
    return root / ("base" if number == 0 else f"expert-{number}")
