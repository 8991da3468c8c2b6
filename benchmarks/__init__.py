"""Benchmarks: each prints machine, versions, spread and the peer beside us. None is a test."""
