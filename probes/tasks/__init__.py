"""Kinds of tasks: scores and classes of sentences, tags of words, answer spans; objective, decoding, scoring.

May import: data, data.corpora, data.store, probes.config, probes.inputs, probes.metrics, probes.models,
probes.results.
Start reading at registry.py, TASKS.
"""
