"""TODO: data/readers."""
