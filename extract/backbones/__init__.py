"""Backbones: architectures, short names, lookup and loading of weights, and the digests that identify them.

May import: data, data.device, data.language, data.plan, data.remote, data.settings, data.store, extract.architecture.
Start reading at locate.py, find_backbone.
"""
