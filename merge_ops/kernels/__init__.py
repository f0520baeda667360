"""The innermost loops in C, their build, and what merges compute with."""
