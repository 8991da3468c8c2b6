"""TODO: extract/finetuning."""
