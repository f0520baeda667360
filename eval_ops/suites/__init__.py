"""What is asked: suites, items, and the one edge to lm-eval."""
