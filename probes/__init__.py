"""Stage two: small probes trained on cached latents. Nothing here loads a language model."""
