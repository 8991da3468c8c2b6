"""Benchmarks of stage two: latents on disk, members side by side, fine-tuned blocks, balancers."""
