"""What changes an input before a method sees it: adapters, gathered rows, packed models."""
