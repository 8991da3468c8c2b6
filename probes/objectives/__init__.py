"""Training objectives by head: the loss and the predictions of a probe for rows, tagged words or answer spans.

May import: data, data.corpora, data.device, data.plan, data.store, probes.config, probes.inputs, probes.models,
probes.tasks.
Start reading at heads.py, HEADS.
The losses (mse, log-variance, cross-entropy, spans) are in losses.py.
"""
