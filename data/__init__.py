"""Data on disk: corpora, cached latents, and the specs that identify them; numpy and h5py, no torch.

May import: data.code.
Start reading at spec.py, parse.
"""
