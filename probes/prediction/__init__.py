"""New texts through a finished run: requests from the command line or a file, and answers.

May import: data, data.corpora, data.readers, data.store, probes.config, probes.inputs, probes.tasks.
Start reading at predictor.py, Predictor.
"""
