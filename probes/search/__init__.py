"""Hyperparameter studies with Optuna: trials, worker processes, the journal of a study.

May import: data, probes.config, probes.results.
Start reading at session.py, search.
"""
