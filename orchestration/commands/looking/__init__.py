"""The commands that look at models: what one is, what differs, where it comes from."""
