"""Hyperparameter studies with Optuna: samplers, trials, worker processes, storage and results.

May import: data, probes.config, probes.results.
Start reading at session.py, searched.
The journal file is in journal.py; storage.py opens a study in it or in a database, which sessions of several hosts may
share: locks.py keeps them apart.
"""
