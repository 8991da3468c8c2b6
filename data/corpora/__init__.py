"""Corpora in memory: texts, rows with targets, splits; from records to arrays.

May import: data, data.writing.
Start reading at corpus.py, Corpus.
"""
