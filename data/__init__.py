"""At rest: corpora, cached latents, and the specs that identify them. Nothing here imports torch."""
