"""Mixtures of experts as other mixtures: fewer moe_experts and their routers, families, layouts."""
