"""TODO: data/corpora."""
