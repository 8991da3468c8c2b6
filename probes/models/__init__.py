"""Probe modules: layerwise encoders, mixers over layers, context models and heads; many members in one module.

May import: data, probes.config.
Start reading at probe.py, Probe.
"""
