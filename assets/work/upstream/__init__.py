"""Models of others, and steps of training runs: found, pulled, checked, packed."""
