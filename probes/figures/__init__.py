"""Figures of a run, drawn with matplotlib or described for plotly, from the run's tables alone.

May import: probes.config, probes.metrics, probes.results.
Start reading at metrics.py, by_layer.
"""
