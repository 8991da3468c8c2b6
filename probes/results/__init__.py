"""The tables and files of a run folder: columns, reading, writing; no torch.

May import: data, data.code, data.corpora, data.settings, data.writing, probes.config, probes.metrics.
Start reading at run_tables.py, Tables.
"""
