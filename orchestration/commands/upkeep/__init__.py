"""The commands that keep a store and a machine in order."""
