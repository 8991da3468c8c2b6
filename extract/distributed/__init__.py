"""Distribution of a request among workers: which packs each of them runs, without a word between them.

May import: data.
Start reading at distribution.py, Distribution.
"""
