"""Extraction by several processes of one machine or of many, and what it takes, in numbers.

May import: data, data.corpora, data.latents, data.plan, data.remote, data.store, data.streams, extract,
extract.backbones, extract.capture, extract.distributed, extract.tokenization, permafrost, probes.config, probes.search,
probes.variants.
Start reading at request.py, ExtractionRequest.
"""
