"""Tasks by kind of target (scores, classes, word tags, answer spans): losses, objectives, decoding and scoring.

May import: data, data.corpora, data.store, probes.config, probes.inputs, probes.metrics, probes.models,
probes.results.
Start reading at registry.py, TASKS.
The losses (mse, log-variance, cross-entropy, spans) are in losses.py.
"""
