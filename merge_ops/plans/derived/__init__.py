"""Models that steps derive from others while they are read: mixtures, fewer moe_experts, other
names, permuted weights.
"""
