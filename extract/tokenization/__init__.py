"""Tokenization: texts to token ids, with templates, truncation, windows over long texts, character spans.

May import: data, data.plan, data.remote, data.store, data.writing, extract.architecture, extract.backbones.
Start reading at tokenize.py, tokenize.
"""
