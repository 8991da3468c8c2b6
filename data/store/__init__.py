"""The latent store: HDF5 shards with latents by layer, their identity, and the commands that maintain them.

May import: data.
Start reading at store.py, LatentStore; shard_layout.py is the file format.
"""
