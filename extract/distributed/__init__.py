"""Distribution of a request among workers: which packs each of them runs, without a word between them.

May import: data, data.plan, data.store, data.store.index, extract.capture, extract.tokenization.
Start reading at distribution.py, Distribution.
"""
