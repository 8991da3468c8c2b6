"""Scratch files: latents that do not fit into memory, in a temporary file from which they are read by text.

May import: data, data.store, data.store.index.
Start reading at latent_file.py, LatentFile.
"""
