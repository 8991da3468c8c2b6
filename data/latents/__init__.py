"""Latents for other programs: arrays that read the store lazily, a store opened by its folder, texts kept beside it.

May import: data, data.plan, data.remote, data.store, data.store.index.
Start reading at array.py, LatentArray.
"""
