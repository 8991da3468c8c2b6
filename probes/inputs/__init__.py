"""What a probe reads: pooled latents, latents of tokens, or states of blocks that are fine-tuned.

May import: data, data.corpora, data.store, probes.config, probes.models.
Start reading at latents.py, ProbeInputs.
"""
