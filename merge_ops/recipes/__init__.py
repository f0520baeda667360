"""What is written: recipes, their steps and sections, and every fault in them."""
