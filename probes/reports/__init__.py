"""TODO: probes/reports."""
