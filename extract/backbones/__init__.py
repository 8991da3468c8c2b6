"""Backbones: the families, short names, finding and loading weights, digests that identify them.

May import: data, data.language, data.store.
Start reading at locate.py, find.
"""
