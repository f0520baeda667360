"""The commands on what the store holds: fetched, written, sent elsewhere, signed, withdrawn."""
