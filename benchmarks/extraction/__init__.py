"""Benchmarks of stage one: speed beside its peers, memory, the self-check, the token view, kinds of models."""
