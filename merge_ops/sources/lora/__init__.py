"""LoRA adapters as experts: their files, configs and names, and the weights that they make."""
