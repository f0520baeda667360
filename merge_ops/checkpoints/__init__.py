"""The format of a checkpoint folder: headers, layout, tensors, configs, pickled weights."""
