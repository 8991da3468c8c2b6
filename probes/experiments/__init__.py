"""Experiments: run of one task or several, layers, ablation, study, similarity, language-model pretraining.

May import: data, data.corpora, data.language, data.plan, data.store, data.streams, probes.balancing, probes.config,
probes.inputs, probes.metrics, probes.models, probes.objectives, probes.results, probes.runs, probes.search,
probes.tasks, probes.tracking, probes.training, probes.variants.
Start reading at run.py, run_recipe.
"""
