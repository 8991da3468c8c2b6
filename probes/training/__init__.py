"""The training loop: epochs, batches, gradient steps, best state, checkpoints, and the pretraining of encoders.

May import: data, data.corpora, data.device, probes.balancing, probes.config, probes.inputs, probes.models,
probes.results.
Start reading at loop.py, fit.
"""
