"""The frame that every asset stands in: its settings, keys and partitions, what people see, and how
it fails.
"""
