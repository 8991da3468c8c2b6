"""Data on disk: corpora, cached latents, and the specs that identify them; numpy and h5py, no torch.

May import: nothing else here.
Start reading at spec.py, parse.
"""
