"""TODO: probes/variants."""
