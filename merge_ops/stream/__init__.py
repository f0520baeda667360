"""The one loop that reads blocks, merges them and hands them out in order."""
