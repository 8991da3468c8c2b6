"""A batch on tiny backbones: no text and no training twice, whatever kills it; failures do not stop the others."""

import csv
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
import tomli_w

import permafrost as pf
from permafrost.data.store.shard import Shard
from tests.support.bench import ROOT, Bench

RECIPES = {
    "scores": '[corpus]\nname = "samples-pairs"\n',
    "two-views": '[corpus]\nname = "samples-pairs"\n[plan]\nviews = ["cls", "mean"]\nlayers = [0, 1, 2]\n',
    "topics": '[corpus]\nname = "samples-topics"\n[plan]\nviews = ["cls"]\n',
}
"""Recipes that share texts, and read other views and layers of them."""


@pytest.fixture
def recipes(tmp_path) -> dict[str, str]:
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.toml").write_text(text)
    return {name: str(tmp_path / f"{name}.toml") for name in RECIPES}


def stored(cache: Path) -> list[tuple[int, int]]:
    """Of each store, the number of texts in its shards, and of distinct ones."""
    found = []
    for store in sorted(path for path in cache.glob("*/*") if path.is_dir()):
        keys = [bytes(key) for shard in store.glob("*.h5") for key in Shard(shard).keys]
        found.append((len(keys), len(set(keys))))
    return [counts for counts in found if counts[0]]


def quick(folder: Path) -> dict[str, object]:
    return {
        "plan": {"max_tokens": 32, "compute_dtype": "float32"},
        "extract": {"device": "cpu", "cache": str(folder / "cache")},
        "train": {"epochs": 1},
    }


def test_one_failure_does_not_stop_the_others_and_texts_that_recipes_share_run_once(
    tmp_path, tiny, recipes, monkeypatch, trained_only
):
    monkeypatch.setattr("permafrost.probes.reports.report.write_report", lambda folder: None)
    spec = {
        "name": "night",
        "backbones": [str(tiny("bert"))],
        "set": quick(tmp_path),
        "runs": [
            {"recipe": recipes["scores"], "name": "odd", "backbone": str(tiny("bert")), "set": {"plan.layers": [99]}}
        ],
    }
    result = pf.batch([recipes["two-views"], recipes["topics"]], tmp_path / "runs", **spec)
    assert result.exit_code == 2
    assert list(result.failed) == ["odd"]
    assert "layer 99" in result.failed["odd"]
    assert stored(tmp_path / "cache") == [(1008, 1008)]
    assert result.texts_run == 1008
    rows = list(csv.DictReader((tmp_path / "runs" / "night" / "summary.csv").read_text().splitlines()))
    assert [(row["run"], row["status"]) for row in rows] == [
        ("two-views", "done"),
        ("topics", "done"),
        ("odd", "failed"),
    ]
    page = (tmp_path / "runs" / "night" / "report.html").read_text()
    assert "layer 99" in page
    assert "What differs between the runs" in page
    assert "plan.views" in page
    before = {path: path.stat().st_mtime for path in (tmp_path / "runs" / "night").rglob("*.csv")}
    file = tmp_path / "night.toml"
    file.write_text(tomli_w.dumps(spec | {"recipes": [recipes["two-views"], recipes["topics"]]}))
    again = pf.batch(file, tmp_path / "runs")
    assert (again.texts_run, again.rows) == (0, result.rows)
    assert all(path.stat().st_mtime == at for path, at in before.items() if path.name != "summary.csv")


@pytest.mark.slow
def test_a_batch_that_is_killed_twice_ends_as_one_that_is_not(tmp_path, tiny, recipes):
    families = [str(tiny("bert")), str(tiny("gpt2"))]
    settings = Bench(tmp_path, tiny("bert")).settings()

    def start(folder: Path, workers: int) -> "subprocess.Popen[bytes]":
        words = ["batch", *recipes.values(), *(word for name in families for word in ("--backbone", name))]
        words += ["--grid", "train.seeds=[0, 1]", "--name", "night", "--runs", str(folder), "--workers", str(workers)]
        own = [one for one in settings if not one.startswith(("plan.backbone", "train.seeds", "extract.cache"))]
        words += [word for one in [*own, f"extract.cache={folder / 'cache'}"] for word in ("--set", one)]
        line = [sys.executable, "pipeline.py", *words, "--log", str(folder / "log.jsonl"), "--quiet"]
        return subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL)

    moments = random.Random(0)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    assert start(whole, 1).wait() == 0
    took = time.monotonic() - began
    for workers in (1, 2):
        process = start(killed, workers)
        time.sleep(moments.uniform(0.1, 0.5) * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start(killed, 2).wait() == 0
    summaries = [(folder / "night" / "summary.csv").read_bytes() for folder in (whole, killed)]
    assert summaries[0] == summaries[1]
    assert len(list((killed / "night").glob("*/record.json"))) == 12
    assert stored(killed / "cache") == [(1008, 1008)] * 2
    events = [json.loads(line) for line in (killed / "log.jsonl").read_text().splitlines()]
    trained = Counter((event["member"], event["training"]) for event in events if event["event"] == "trained")
    assert len(trained) == 12
    assert set(trained.values()) == {1}
    assert not [path for path in (killed / "night").rglob(".*") if "lock" not in path.name]
    assert not (killed / "night" / "unfinished").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_batch_that_is_stopped_says_what_is_safe_and_leaves_nothing_half_written(tmp_path, tiny, recipes, sent, code):
    words = [
        "batch",
        *recipes.values(),
        "--grid",
        "train.seeds=[0, 1]",
        "--workers",
        "2",
        "--runs",
        str(tmp_path / "runs"),
    ]
    more = [
        one for one in Bench(tmp_path, tiny("bert")).settings("train.epochs=500") if not one.startswith("train.seeds")
    ]
    log = tmp_path / "log.jsonl"
    process = Bench(tmp_path, tiny("bert")).process(*words, "--log", str(log), settings=more)
    while not log.exists() or '"epoch"' not in log.read_text():
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(sent)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "kept; the same command goes on from there" in err
    assert json.loads(log.read_text().splitlines()[-1])["exit_code"] == code
    assert not list((tmp_path / "runs").rglob(".*"))
