"""Metrics, bootstrap intervals and paired tests, SQuAD and entity rules, calibration, projections; no torch.

May import: data.corpora, data.writing.
Start reading at metrics.py, accuracy; each task names its metrics.
"""
