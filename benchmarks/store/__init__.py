"""Benchmarks of the latent store: writing, opening, finding and reading, and what is made of stored latents."""
