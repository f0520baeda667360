"""A live model whose weights are exchanged, and what makes its answers repeat."""
