"""Merging checkpoints as a library: torch and safetensors, no orchestrator, no cloud client."""
