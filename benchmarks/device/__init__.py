"""Benchmarks of one device against another."""
