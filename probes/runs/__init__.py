"""Run folders: writing a finished run, and reading it back for prediction.

May import: data, data.plan, data.settings, data.store, probes.config, probes.inputs, probes.metrics, probes.models,
probes.objectives, probes.reports, probes.results, probes.tasks.
Start reading at write.py, RunWriter.
"""
