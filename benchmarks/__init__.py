"""Benchmarks: each prints machine, versions, spread and the peer beside us. None is a test."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line sets it; all arms get it
