"""TODO: permafrost/cli."""
