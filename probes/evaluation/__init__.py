"""Evaluation of finished runs on labelled data: their own corpus, or data from elsewhere.

Labels of the data are matched by name with those of the run, latents come from the cache, and everything is measured by
the code that measures a run. Several runs and data sets make a transfer matrix: trained on one, tested on another.
May import: data, data.corpora, data.plan, data.readers, data.store, probes.config, probes.inputs, probes.metrics,
probes.objectives, probes.results, probes.runs, probes.tasks, probes.variants.
Start reading at reading.py, read_evaluations, then evaluate.py, evaluate_runs.
"""
