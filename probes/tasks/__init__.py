"""Kinds of tasks, one class each: scores, classes, label sets, word tags and answer spans; no torch.

May import: data, data.corpora, data.writing, probes.config, probes.metrics, probes.results.
Start reading at base.py, Task.
registry.py registers all kinds, and resolves what a recipe trains on a corpus.
"""
