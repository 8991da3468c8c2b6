"""One variant of a recipe: its corpora and latents, training over seeds, predictions and result tables.

May import: data, data.corpora, data.device, data.plan, data.readers, data.remote, data.store, probes.balancing,
probes.config, probes.inputs, probes.metrics, probes.models, probes.objectives, probes.results, probes.search,
probes.tasks, probes.training.
Start reading at workspace.py, Workspace.
"""
