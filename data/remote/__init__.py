"""Caches on object storage: a copy on this machine of what is read, and files that are sent whole.

May import: data, data.store.index.
Start reading at mirror.py, local_cache.
"""
