"""A package of others that pip installs: a recipe names its parts, its run predicts, and tells what lacks elsewhere."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bench import ROOT, Bench, pairs

pytestmark = pytest.mark.slow

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "others-parts"
version = "2.5"

[tool.setuptools]
py-modules = ["others_parts"]

[project.entry-points."permafrost.heads"]
gated = "others_parts:gated"

[project.entry-points."permafrost.losses"]
focal = "others_parts:focal"
broken = "others_parts:nothing"

[project.entry-points."permafrost.metrics"]
informedness = "others_parts:informedness"

[project.entry-points."permafrost.poolings"]
ends = "others_parts:ends"

[project.entry-points."permafrost.readers"]
lines = "others_parts:lines"
"""

MODULE = """
import numpy as np
import torch
import permafrost as pf

class Gated(torch.nn.Module):
    def __init__(self, inputs, outputs, width=32):
        super().__init__()
        self.value, self.gate = torch.nn.Linear(inputs, width), torch.nn.Linear(inputs, width)
        self.dropout, self.out = torch.nn.Dropout(0.1), torch.nn.Linear(width, outputs)

    def forward(self, features):
        return self.out(self.dropout(self.value(features) * torch.sigmoid(self.gate(features))))

def focal_loss(logits, target):
    likelihood = torch.log_softmax(logits, -1).gather(-1, target[:, None])[:, 0]
    return -((1 - likelihood.exp()) ** 2 * likelihood).mean()

def youden(prediction, target):
    recalls = [np.mean(prediction[target == label] == label) for label in np.unique(target)]
    return sum(recalls) - 1

def both_ends(hidden, mask):
    return (hidden[:, 0] + hidden[torch.arange(len(hidden)), mask.sum(1) - 1]) / 2

def read_lines(path):
    for line in path.read_text("utf-8").splitlines():
        split, label, text = line.split(" | ")
        yield {"text": text, "label": label, "split": split}

gated = pf.Head(Gated, targets=["class", "score"])
focal = pf.Loss(focal_loss, targets=["class"])
informedness = pf.Metric(youden, targets=["class"])
ends = pf.Pooling(both_ends)
lines = pf.Reader(read_lines)
"""

RECIPE = """
[corpus]
path = "rows.lines"

[plan]
views = ["ends", "mean"]

[probe]
encoder = "linear"
head = "gated"
head_options = { width = 8 }

[train]
loss = "focal"
metric = "informedness"
seeds = [0, 1]
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    (source / "pyproject.toml").write_text(PROJECT, "utf-8")
    (source / "others_parts.py").write_text(MODULE, "utf-8")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, source], check=True, timeout=300)
    return target


def command(folder: Path, *words: str, path: Path | None = None) -> "subprocess.CompletedProcess[str]":
    paths = [str(ROOT), *([str(path)] if path else [])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", "permafrost.cli.main", *words]
    program = f"import sys; sys.argv = {line[2:]!r}; from permafrost.cli.main import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_a_recipe_names_the_parts_of_an_installed_package(installed, tiny, tmp_path):
    rows = [(split, "same" if score > 0.4 else "other", first) for first, _, score, split in pairs()]
    (tmp_path / "rows.lines").write_text("\n".join(" | ".join(row) for row in rows), "utf-8")
    (tmp_path / "own.toml").write_text(RECIPE, "utf-8")

    told = command(tmp_path, "plugins", "--json", path=installed)
    assert told.returncode == 0, told.stderr
    listed = {(each["kind"], each["name"]): each for each in json.loads(told.stdout)["plugins"]}
    assert {each["package"] for each in listed.values()} == {"others-parts"}
    assert "cannot be imported" in listed.pop(("loss", "broken"))["problem"]
    assert not any(each["problem"] for each in listed.values())
    assert len(listed) == 5

    settings = [
        word for setting in Bench(tmp_path, tiny("bert")).settings("train.seeds=0,1") for word in ("--set", setting)
    ]
    run = command(tmp_path, "run", "own.toml", "--json", *settings, path=installed)
    assert run.returncode == 0, run.stderr
    result = json.loads(run.stdout)
    measured = {row["metric"]: row["value"] for row in result["metrics"] if row["split"] == "test" and row["seed"] == 0}
    assert {"informedness", "accuracy"} <= set(measured)
    folder = Path(result["run"])
    record = json.loads((tmp_path / folder / "record.json").read_text("utf-8"))
    names = ("head gated", "loss focal", "metric informedness", "pooling ends")
    assert set(record["plugins"]) == set(names)
    assert all(re.fullmatch("others-parts 2.5, code [0-9a-f]{16}", text) for text in record["plugins"].values())
    assert (record["metric"], record["probes"][record["selected"]]["head"]) == ("informedness", "gated")

    (tmp_path / "new.txt").write_text("the cat\na dog\n")
    predicted = command(tmp_path, "predict", str(folder), "--file", "new.txt", "--json", path=installed)
    assert predicted.returncode == 0, predicted.stderr
    evaluated = command(tmp_path, "evaluate", str(folder), "--data", "rows.lines", "--json", path=installed)
    assert evaluated.returncode == 0, evaluated.stderr
    again = {row["metric"]: row["value"] for row in json.loads(evaluated.stdout)["metrics"] if row["seed"] == 0}
    assert again["informedness"] == measured["informedness"]

    without = command(tmp_path, "predict", str(folder), "--file", "new.txt")
    assert without.returncode == 2
    assert "If another package has this pooling, install it." in without.stderr
    assert without.stderr.count("\n") == 1
