"""The benchmark of the peers runs in small; every arm has a line, with figures or with a reason."""

import sys

import numpy as np
import pytest

from benchmarks.extraction import peers
from permafrost.data.machine import package_version
from tests.support.real import real_data


@pytest.mark.slow
@pytest.mark.parametrize("family", ["bert", "gpt2"])
@pytest.mark.filterwarnings("ignore")  # of the packages
def test_every_arm_has_a_line(family, tiny, monkeypatch, capsys):
    real_data("stsb")
    words = ["--backbone", str(tiny(family)), "--runs", "1", "--neighbours", "8", "--rounds", "1"]
    monkeypatch.setattr(sys, "argv", ["peers", *words])
    peers.main()
    lines = capsys.readouterr().out.splitlines()[3:]
    told = {line[:34].strip(): line[34:].strip() for line in lines}
    assert {f"{peer}, float32" for peer in ("ours", "nnsight", "TransformerLens", "ONNX Runtime")} < set(told)
    assert told["sentence-transformers, float32"].startswith(("not installed", "sentence encoders only"))
    for peer, package in {
        "nnsight": "nnsight",
        "TransformerLens": "transformer-lens",
        "ONNX Runtime": "onnxruntime",
    }.items():
        if not package_version(package):
            assert told[f"{peer}, float32"] == f"not installed: {package}"
    assert float(told["ours, float32"].split()[-1]) > 0.999


def test_the_lowest_cosine_is_of_the_middle_layer_or_of_the_only_one():
    reference = np.random.default_rng(0).normal(size=(3, 4, 5))
    assert peers.lowest_cosine(reference, reference) == pytest.approx(1)
    assert peers.lowest_cosine(2 * reference[-1], reference) == pytest.approx(1)
    turned = reference.copy()
    turned[1, 2] *= -1
    assert peers.lowest_cosine(turned, reference) == pytest.approx(-1)
