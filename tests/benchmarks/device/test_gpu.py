"""The benchmark of a GPU runs on the CPU too, in small, where both devices are one and compute the same."""

import re
import sys

import pytest

from benchmarks.device import gpu


@pytest.mark.slow
def test_the_benchmark_of_a_gpu_runs_in_small_on_the_cpu(tiny, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gpu", "--scale", "tiny", "--device", "cpu", "--backbones", str(tiny("bert"))])
    gpu.main()
    out = capsys.readouterr().out
    assert re.findall(r"(\S+)(?: of the spread)? apart", out) == ["0.0e+00", "0.0e+00"]
    assert "ours, " in out
    assert "40 rows of samples-pairs" in out
