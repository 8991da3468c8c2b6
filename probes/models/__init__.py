"""Probe modules: layerwise encoders, mixers over layers, context models and heads; many members in one module.

May import: data, data.device, probes.config.
Start reading at probe.py, Probe.
"""
