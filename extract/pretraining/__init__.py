"""TODO: extract/pretraining."""
