"""Batches: many runs, planned together: from a batch file to runs, one extraction, a summary and a page over all.

May import: nothing else here. Start reading at run_batch.py, run_batch.
"""
