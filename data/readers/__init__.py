"""Corpora from files, named data sets and the hub: csv, jsonl, parquet, CoNLL, SQuAD, plain text.

May import: data, data.corpora, data.files, data.writing.
Start reading at load.py, load_corpus.
"""
