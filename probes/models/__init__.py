"""TODO: probes/models."""
