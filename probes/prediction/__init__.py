"""Predictions of finished runs for new texts: requests from the command line or a file, predictors, output tables.

May import: data, data.corpora, data.device, data.files, data.plan, data.readers, data.store, probes.config,
probes.inputs, probes.models, probes.objectives, probes.tasks.
Start reading at predictor.py, Predictor.
"""
