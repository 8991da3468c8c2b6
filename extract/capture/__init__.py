"""TODO: extract/capture."""
