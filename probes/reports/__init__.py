"""The self-contained HTML page of a run, and the page that compares several runs.

May import: data, data.corpora, probes.config, probes.figures, probes.metrics, probes.results, probes.tasks.
Start reading at report.py, write_report.
"""
