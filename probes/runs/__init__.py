"""TODO: probes/runs."""
