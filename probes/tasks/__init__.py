"""TODO: probes/tasks."""
