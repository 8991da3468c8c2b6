"""The benchmark of the store reads the same rows from both arms, and finds every text with an index and without."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.store import scale
from permafrost.data.store.store import LatentStore


def test_both_arms_hold_the_same_latents(tmp_path):
    scale.write(tmp_path, 50, 20, (2, 4))
    stored = LatentStore.open(scale.store_folder(str(tmp_path))).read(list(map(scale.text, range(50))), "mean", [1])
    files = [np.fromfile(path, np.float16) for path in sorted((tmp_path / "plain").iterdir())]
    plain = np.concatenate([values.reshape(2, -1, 4)[1] for values in files])
    np.testing.assert_array_equal(stored[0], plain)


def test_the_benchmark_runs_in_small(in_process, monkeypatch, tmp_path, capsys):
    looks = []
    monkeypatch.setattr(scale, "measure", in_process)
    remove = scale.without_index
    monkeypatch.setattr(scale, "without_index", lambda folder: looks.append(remove(folder)))
    words = ["--rows", "200", "--shard-rows", "10", "--texts", "30", "--rounds", "2", "--folder", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["scale", *words])
    scale.main()
    assert looks == [0, 1], "the first look of a round made an index file"
    out = capsys.readouterr().out
    assert "200 rows, 2 layers of width 64 in float16, 0 MB, 20 shards of 10 rows" in out
    assert "open and find, s" in out
    assert not list(Path(tmp_path).iterdir())
