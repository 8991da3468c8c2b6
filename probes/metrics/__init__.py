"""TODO: probes/metrics."""
