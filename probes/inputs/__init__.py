"""TODO: probes/inputs."""
