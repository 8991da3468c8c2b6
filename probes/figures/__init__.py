"""TODO: probes/figures."""
