"""TODO: probes/search."""
