"""The latent store: HDF5 shards with latents by layer, their identity, and the commands that maintain them.

May import: data, data.code, data.plan, data.remote, data.store.index.
Start reading at store.py, LatentStore; the shard format is in shard_layout.py.
"""
