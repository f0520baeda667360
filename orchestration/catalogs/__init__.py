"""The catalog folder: read, checked as a whole, and turned into partitions."""
