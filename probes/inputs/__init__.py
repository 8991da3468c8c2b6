"""Probe inputs: pooled latents, token latents, or outputs of fine-tuned blocks; and the providers of latents.

May import: data, data.corpora, data.device, data.latents, data.plan, data.remote, data.scratch, data.store,
probes.config, probes.models.
Start reading at latents.py, ProbeInputs.
"""
