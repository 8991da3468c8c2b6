"""TODO: probes/prediction."""
