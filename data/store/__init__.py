"""TODO: data/store."""
