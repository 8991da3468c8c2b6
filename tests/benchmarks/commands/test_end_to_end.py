"""The benchmark of ``run sts`` runs in small; a warm run runs no text, and a changed corpus its new ones."""

import re
import sys

import pytest

from benchmarks.commands import end_to_end
from permafrost.data.corpora.spec import CorpusSpec
from permafrost.data.readers.load import load_corpus


def test_one_text_in_a_hundred_is_changed():
    texts = [str(text) for text in load_corpus(CorpusSpec(name="samples-pairs")).texts]
    apart = [new for old, new in zip(texts, end_to_end.changed(texts), strict=True) if new != old]
    assert len(apart) == round(0.01 * len(texts))
    assert not set(apart) & set(texts)


@pytest.mark.slow
def test_the_benchmark_runs_in_small(tiny, in_process, monkeypatch, capsys):
    monkeypatch.setattr(end_to_end, "measure", in_process)
    words = ["--corpus", "samples-pairs", "--rounds", "1", "--backbone", str(tiny("bert"))]
    words += ["--set", "train.epochs=1", "--set", "train.seeds=0", "--set", "probe.inputs=mean"]
    monkeypatch.setattr(sys, "argv", ["end_to_end", *words])
    end_to_end.main()
    out = capsys.readouterr().out
    ran = re.findall(r"^(?:cold|warm|1 % new).*\) +(\d+) ", out, re.M)
    assert ran == ["828", "0", "8"]
    assert re.search(r"^warm.*equal$", out, re.M)
    assert "NOT EQUAL" not in out
