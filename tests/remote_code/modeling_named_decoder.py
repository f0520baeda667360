"""A small decoder whose tensors are named as three published models name theirs.

Their own code is on the Hub and not in transformers, so a test writes this file beside the weights
and loads it with `trust_remote_code`. `naming` in the config says whose names are used: those of
ChatGLM2/3 (`chatglm`), Baichuan (`baichuan`) or InternLM2 (`internlm2`).
"""

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

NAMES = {
    "chatglm": {
        "embedding": "transformer.embedding.word_embeddings",
        "layers": "transformer.encoder.layers",
        "first_norm": "input_layernorm",
        "packed": "self_attention.query_key_value",
        "out": "self_attention.dense",
        "second_norm": "post_attention_layernorm",
        "up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
        "norm": "transformer.encoder.final_layernorm",
        "head": "transformer.output_layer",
    },
    "baichuan": {
        "embedding": "model.embed_tokens",
        "layers": "model.layers",
        "first_norm": "input_layernorm",
        "packed": "self_attn.W_pack",
        "out": "self_attn.o_proj",
        "second_norm": "post_attention_layernorm",
        "up": "mlp.gate_up_proj",
        "down": "mlp.down_proj",
        "norm": "model.norm",
        "head": "lm_head",
    },
    "internlm2": {
        "embedding": "model.tok_embeddings",
        "layers": "model.layers",
        "first_norm": "attention_norm",
        "packed": "attention.wqkv",
        "out": "attention.wo",
        "second_norm": "ffn_norm",
        "up": "feed_forward.w13",
        "down": "feed_forward.w2",
        "norm": "model.norm",
        "head": "output",
    },
}


class NamedDecoderConfig(PretrainedConfig):
    """The sizes of a decoder, and whose names its tensors have."""

    model_type = "named_decoder"

    def __init__(
        self, naming="chatglm", hidden_size=32, num_layers=3, num_heads=4, vocab_size=64, **rest
    ):
        self.naming = naming
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.vocab_size = vocab_size
        super().__init__(**{"tie_word_embeddings": False, **rest})


class NamedDecoder(PreTrainedModel):
    """A decoder with packed attention, RMS norms and a gated feed-forward network."""

    config_class = NamedDecoderConfig

    def __init__(self, config):
        super().__init__(config)
        names, width = NAMES[config.naming], config.hidden_size
        biased = config.naming == "chatglm"
        _put(self, names["embedding"], nn.Embedding(config.vocab_size, width))
        layers = []
        for _ in range(config.num_layers):
            layer = nn.Module()
            _put(layer, names["first_norm"], nn.RMSNorm(width, eps=1e-5))
            _put(layer, names["packed"], nn.Linear(width, 3 * width, bias=biased))
            _put(layer, names["out"], nn.Linear(width, width, bias=False))
            _put(layer, names["second_norm"], nn.RMSNorm(width, eps=1e-5))
            _put(layer, names["up"], nn.Linear(width, 4 * width, bias=False))
            _put(layer, names["down"], nn.Linear(2 * width, width, bias=False))
            layers.append(layer)
        _put(self, names["layers"], nn.ModuleList(layers))
        _put(self, names["norm"], nn.RMSNorm(width, eps=1e-5))
        _put(self, names["head"], nn.Linear(width, config.vocab_size, bias=False))
        self.post_init()

    def forward(self, input_ids, **kwargs):
        """Logits [batch, length, vocabulary] of token ids [batch, length]."""
        names = NAMES[self.config.naming]
        hidden = self.get_submodule(names["embedding"])(input_ids)
        for layer in self.get_submodule(names["layers"]):
            part = {name: layer.get_submodule(path) for name, path in names.items() if _in(path)}
            packed = part["packed"](part["first_norm"](hidden))
            heads = packed.unflatten(-1, (3, self.config.num_heads, -1)).permute(2, 0, 3, 1, 4)
            seen = nn.functional.scaled_dot_product_attention(*heads, is_causal=True)
            hidden = hidden + part["out"](seen.transpose(1, 2).flatten(2))
            gate, up = part["up"](part["second_norm"](hidden)).chunk(2, -1)
            hidden = hidden + part["down"](nn.functional.silu(gate) * up)
        normed = self.get_submodule(names["norm"])(hidden)
        return CausalLMOutput(logits=self.get_submodule(names["head"])(normed))


def _put(module, path, child):
    """Put a child at a dotted path, with empty modules on the way."""
    *way, last = path.split(".")
    for name in way:
        if not hasattr(module, name):
            module.add_module(name, nn.Module())
        module = getattr(module, name)
    module.add_module(last, child)


def _in(path):
    """Whether a path of NAMES lies inside a layer."""
    return not path.startswith(("transformer.", "model.")) and path not in ("lm_head", "output")
