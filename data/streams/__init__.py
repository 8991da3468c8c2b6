"""Texts and documents as streams: of corpora of any size, in memory that does not grow with them.

May import: data, data.corpora, data.files, data.language, data.readers.
Start reading at texts.py, scan_texts.
"""
