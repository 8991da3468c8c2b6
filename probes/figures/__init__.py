"""Figures of a run, drawn with matplotlib or described for plotly, from the run's tables alone.

May import: probes.config, probes.metrics, probes.results.
Start reading at metrics.py, variants.
The figures in three dimensions are in scatter_3d.py (latents) and sentence_map.py (similarity).
"""
