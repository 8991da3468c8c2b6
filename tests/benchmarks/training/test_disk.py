"""The benchmark of training from disk runs in small; where latents lie changes no metric."""

import sys

from benchmarks.training import disk
from permafrost.probes.variants import members


def test_the_benchmark_runs_in_small(in_process, monkeypatch, capsys):
    monkeypatch.setattr(disk, "measure", in_process)
    monkeypatch.setattr(members, "MAX_STACKED_PARAMETERS", members.MAX_STACKED_PARAMETERS)  # the benchmark changes it
    monkeypatch.setattr(sys, "argv", ["disk", "--rows", "300", "--epochs", "1", "--rounds", "1"])
    disk.main()
    differ = [line.split()[-1] for line in capsys.readouterr().out.splitlines() if line.startswith(("memory", "disk"))]
    assert len(differ) == 6
    assert set(differ[:4]) == {"0.0e+00"}
    assert max(map(float, differ)) < 1e-5, "side by side, sums have another order"
