"""What tensors are, told from their names: parts, depth, buffers, other spellings, ties."""
