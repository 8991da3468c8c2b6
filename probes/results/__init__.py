"""The tables and files of a run folder: columns, reading, writing; no torch.

May import: data, data.corpora, probes.config.
Start reading at run_tables.py, Tables.
"""
