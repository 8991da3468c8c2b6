"""Benchmarks of whole commands."""
