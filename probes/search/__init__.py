"""Hyperparameter studies with Optuna: samplers, trials, worker processes, storage and results.

May import: data, probes.config, probes.results.
Start reading at session.py, search.
"""
