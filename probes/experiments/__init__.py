"""TODO: probes/experiments."""
