"""TODO: extract/tokenization."""
