"""The tests; each is named after what it claims."""
