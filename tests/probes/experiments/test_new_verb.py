"""A further command that trains is one function: the experiment gives it latents, checkpoints, folder and record."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from permafrost import api
from permafrost.data.progress import NoProgress, Progress
from permafrost.probes.config.ablation import subsets
from permafrost.probes.config.load import load_training
from permafrost.probes.config.names import PROBE
from permafrost.probes.config.recipe import Recipe
from permafrost.probes.experiments.experiment import Experiment
from permafrost.probes.experiments.subsets import SubsetTrainer
from permafrost.probes.inputs.providers import LatentProvider
from permafrost.probes.reports.report import PAGES
from permafrost.probes.results.files import NEEDED
from permafrost.probes.results.metric_row import MetricRow
from permafrost.probes.results.outcomes import RunResult
from permafrost.probes.variants.record import latent_stores
from permafrost.stage_one import PROVIDER
from tests.support.bench import Bench

SHARES = (0.25, 0.5, 1.0)
"""Shares of the training rows that the probe is trained on."""


def run_learning_curve(
    name: str, recipe: Recipe, runs: Path, progress: Progress, provider: LatentProvider
) -> RunResult:
    """Train the probe of a recipe on growing shares of its training rows, and write a run folder."""
    with Experiment(f"curve-{name}", recipe, runs, progress, provider, "curve") as experiment:
        problems = experiment.prepare({name: recipe})
        corpus, rows = problems[PROBE].corpus, list[MetricRow]()
        for share in SHARES:
            train = corpus.split("train")
            fewer = train.select(np.arange(round(share * len(train))))
            problem = replace(problems[PROBE], corpus=replace(corpus, splits={**corpus.splits, "train": fewer}))
            trainer = SubsetTrainer(PROBE, recipe, experiment.workspace, f"{share:.0%} of the rows", problem)
            (all_layers,) = subsets("all", trainer.columns)
            trainer.train([all_layers], f"{len(fewer):,} rows")
            rows += trainer.rows(all_layers)
        return experiment.finish(
            rows, problems, latent_stores({name: recipe}, experiment.workspace), {"shares": SHARES}
        )


def test_a_new_command_that_trains_takes_at_most_forty_lines_and_leaves_a_complete_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("permafrost.probes.metrics.bootstrap.RESAMPLES", 50)
    monkeypatch.setitem(NEEDED, "curve", ("metrics.csv",))
    monkeypatch.setitem(PAGES, "curve", PAGES["ablation"])
    assert len(inspect.getsource(run_learning_curve).splitlines()) <= 40
    bench, checkpoints = Bench(tmp_path, tiny("bert")), []
    settings = bench.of_pairs("corpus.target=score", "corpus.name=", "train.epochs=1", "variants=[]")
    name, recipe = load_training("quickstart", settings)
    monkeypatch.setattr(
        "permafrost.probes.training.resume.UnfinishedTrainings.remove",
        lambda unfinished: checkpoints.extend(unfinished.path.glob("*.safetensors")),
    )
    done = run_learning_curve(name, recipe, bench.runs, NoProgress(), PROVIDER)
    assert len(checkpoints) == len(SHARES)  # a killed one goes on
    record = json.loads((done.path / "record.json").read_text("utf-8"))
    assert {"versions", "commit", "host", "machine", "seconds", "stores", "tasks"} <= record.keys()
    assert (record["experiment"], record["shares"]) == ("curve", list(SHARES))
    table = pd.read_csv(done.path / "metrics.csv")
    assert list(dict.fromkeys(table["control"])) == [f"{share:.0%} of the rows" for share in SHARES]
    assert len(table) == len(done.metrics)
    assert set(table["subset"]) == {"all"}
    assert (done.path / "report.html").stat().st_size > 0
    (done.path / "report.html").unlink()
    page = api.report(done.path).read_text("utf-8")
    assert all(f"{share:.0%} of the rows" in page for share in SHARES)
