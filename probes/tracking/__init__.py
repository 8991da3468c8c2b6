"""Experiment trackers: what the events of a run tell TensorBoard, MLflow and Weights & Biases.

May import: data, probes.config, probes.results.
Start reading at tracking.py, Tracking.
A tracker is a class that keeps the series of a run; none is imported before a run reports to it.
"""
