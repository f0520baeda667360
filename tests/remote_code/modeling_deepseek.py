"""DeepSeek-MoE (model_type `deepseek`) as its own code on the Hub computes it, written anew.

transformers has no class of it: its DeepSeek classes, from V2 on, norm a latent of keys and values
(`kv_a_layernorm`), which no attention of a Llama can be written as.
"""

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaMLP


class DeepseekConfig(LlamaConfig):
    """A Llama's config, and what its mixtures have."""

    model_type = "deepseek"


class DeepseekMoE(nn.Module):
    """moe_experts that tokens are sent to, and shared ones that every token goes through."""

    def __init__(self, config):
        super().__init__()
        self.chosen, self.normed = config.num_experts_per_tok, config.norm_topk_prob
        own = LlamaConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.moe_intermediate_size,
            hidden_act=config.hidden_act,
        )
        self.experts = nn.ModuleList(LlamaMLP(own) for _ in range(config.n_routed_experts))
        self.gate = nn.Linear(config.hidden_size, config.n_routed_experts, bias=False)
        if config.n_shared_experts:
            own.intermediate_size *= config.n_shared_experts
            self.shared_experts = LlamaMLP(own)

    def forward(self, hidden):
        weights, places = self.gate(hidden).softmax(-1).topk(self.chosen, dim=-1)
        if self.normed:
            weights = weights / weights.sum(-1, keepdim=True)
        every = torch.stack([expert(hidden) for expert in self.experts], dim=-2)
        chosen = every.gather(-2, places[..., None].expand(*places.shape, hidden.shape[-1]))
        mixed = (weights[..., None] * chosen).sum(-2)
        return mixed + self.shared_experts(hidden) if hasattr(self, "shared_experts") else mixed


class DeepseekForCausalLM(LlamaForCausalLM):
    """A Llama whose MLPs are mixtures."""

    config_class = DeepseekConfig

    def __init__(self, config):
        super().__init__(config)
        for layer in self.model.layers:
            layer.mlp = DeepseekMoE(config)
        self.post_init()
