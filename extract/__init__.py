"""Extraction: the latents of texts, computed by a frozen backbone and stored; language models are loaded only here.

May import: data, data.device, data.latents, data.plan, data.remote, data.store, data.store.index, extract.architecture,
extract.backbones, extract.capture, extract.distributed, extract.proofs, extract.tokenization.
Start reading at extraction.py, extract.
"""
