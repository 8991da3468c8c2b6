"""TODO: probes/balancing."""
