"""Export of vectors with their rows to files that other programs read: npy, safetensors, parquet, Arrow.

May import: data, data.corpora, data.plan, data.store.
Start reading at export.py, export.
"""
