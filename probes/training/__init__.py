"""The training loop: epochs, batches, parameter groups, best state, checkpoints, pretraining of encoders.

May import: data, data.corpora, probes.balancing, probes.config, probes.inputs, probes.models.
Start reading at loop.py, fit.
"""
