"""Stage one: texts in, latents out; with its sub-packages the only code that loads a language model.

May import: data, data.corpora, data.store, extract.backbones, extract.capture, extract.tokenization.
Start reading at extraction.py, extract.
"""
