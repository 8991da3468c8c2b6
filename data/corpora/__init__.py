"""Corpora in memory: texts, rows with targets, splits; from records to arrays.

May import: data.
Start reading at corpus.py, Corpus.
"""
