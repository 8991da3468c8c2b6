"""TODO: probes/results."""
