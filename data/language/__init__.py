"""TODO: data/language."""
