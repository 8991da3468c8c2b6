"""TODO: probes/training."""
