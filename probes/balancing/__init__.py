"""Balancing the losses of several tasks: loss weights and gradient surgery.

May import: data, probes.config.
Start reading at weighting.py, BALANCERS.
"""
