"""Batches: many runs, planned together: from a batch file to runs, one extraction, a summary and a page over all.

May import: data, data.settings, extract, permafrost, permafrost.display, probes.config, probes.reports, probes.results,
probes.search, probes.tracking, probes.variants.
Start reading at run_batch.py, run_batch.
"""
