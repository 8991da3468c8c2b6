"""What the Python interface shows: progress on a terminal or in a notebook, and results as HTML in a notebook.

May import: data, probes.reports, probes.results.
Start reading at choose.py, show_progress.
"""
