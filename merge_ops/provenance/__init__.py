"""What a result says of itself: the model card."""
