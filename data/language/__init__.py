"""Settings and record of a language model that is pretrained from scratch.

May import: data.
Start reading at spec.py, LanguageSpec.
"""
