"""TODO: extract/backbones."""
