"""TODO: probes/config."""
