"""A tiny mixture of eight moe_experts that is trained, and what is left of it with fewer."""
