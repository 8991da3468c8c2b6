"""The benchmark of scaling runs in small; a larger corpus begins with the smaller one, and no text is twice."""

import re
import sys

import pytest

from benchmarks.extraction import scaling


def test_a_larger_corpus_begins_with_the_smaller_one(tmp_path):
    for count in (50, 300):
        scaling.write_texts(tmp_path / f"{count}.txt", count)
    small, large = ((tmp_path / f"{count}.txt").read_text().splitlines() for count in (50, 300))
    assert large[:50] == small
    assert len(set(large)) == 300


@pytest.mark.slow
def test_the_benchmark_runs_in_small(tiny, monkeypatch, capsys):
    words = ["--texts", "20", "60", "--rounds", "1", "--layer", "1", "--backbone", str(tiny("gpt2"))]
    monkeypatch.setattr(sys, "argv", ["scaling", *words])
    scaling.main()
    assert re.findall(r"^ +([\d,]+) +\d", capsys.readouterr().out, re.M) == ["20", "60"]
