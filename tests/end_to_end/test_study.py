"""``study`` from end to end: workers share latents, the best trial becomes a recipe, and is trained again."""

import json
import re
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from permafrost import api
from permafrost.data.spec import SpecError
from permafrost.probes.search.trials import StudyElsewhere
from tests.support.bench import Bench

SPACE = [
    'study.space.probe.encoder=["none", "linear"]',
    "study.space.train.learning_rate={ low = 1e-4, high = 1e-2, log = true }",
    'study.space.plan.views=[["mean"], ["cls"]]',
]


@pytest.fixture
def bench(tiny, tmp_path, quick):
    return Bench(tmp_path, tiny("bert"))


def texts_extracted(bench: Bench) -> int:
    return sum(1 for _ in (bench.folder / "cache").rglob("*.h5"))


@pytest.mark.parametrize(
    ("key", "choices", "wrong"),
    [
        ("train.loss", ["mse", "mes"], "mes"),
        ("train.loss", ["mse", "cross_entropy"], "cross_entropy"),
        ("probe.head", ["cosine", "tags"], "tags"),
    ],
)
def test_a_choice_that_the_task_does_not_have_is_refused_before_any_text_is_run(key, choices, wrong, bench):
    message = f"study.space: '{key}' cannot be '{wrong}': {key} = '{wrong}' does not fit similarity; use one of: "
    with pytest.raises(SpecError, match=re.escape(message)):
        api.study("pairs", bench.of_pairs(f"study.space.{key}={json.dumps(choices)}"), runs=bench.runs)
    assert not texts_extracted(bench)


def test_a_study_ends_with_its_best_trial_trained_again(bench):
    settings = bench.of_pairs(*SPACE, "study.seeds=0,1")
    line = ["study", "pairs", "--trials", "6", "--json", "--runs", str(bench.runs)]
    code, out, err = bench.command(*line, settings=settings)
    assert code == 0, err
    said = json.loads(out)
    assert set(said) == {"study", "trials", "best", "recipe", "run"}
    assert said["trials"] == 6
    best = tomllib.loads(Path(said["recipe"]).read_text())
    assert best["probe"]["encoder"] == said["best"]["params"]["probe.encoder"]
    assert best["plan"]["views"] == said["best"]["params"]["plan.views"]
    assert best["train"]["seeds"] == [0, 1]
    metrics = pd.read_csv(f"{said['run']}/metrics.csv")
    assert set(metrics["seed"].dropna()) == {0, 1}
    shards = texts_extracted(bench)
    done = api.run(said["recipe"], [], bench.runs)
    assert done.texts_run == 0
    assert bench.command(*line, settings=settings)[0] == 0  # it is finished: nothing is trained or extracted
    assert texts_extracted(bench) == shards == 2  # a shard a view


def test_a_study_of_a_variant_begins_from_its_settings(bench):
    settings = bench.of_pairs(SPACE[1])
    found, _ = api.study("pairs", settings, "v", trials=2, runs=bench.runs, variant="weights")
    assert tomllib.loads(found.recipe.read_text())["probe"]["encoder"] == "none"


def test_a_study_that_another_host_ends_is_told_in_a_line(bench, monkeypatch):
    def ends(*_, **__):
        raise StudyElsewhere("pairs", 20, "host-b", "/runs/study-pairs", written=True)

    monkeypatch.setattr(api, "study", ends)
    code, out, err = bench.command("study", "pairs")
    assert (code, err) == (0, "")
    assert out.startswith("study 'pairs' is complete, 20 trials; host-b wrote its results")
    code, out, _ = bench.command("study", "pairs", "--json")
    facts = {"trials": 20, "host": "host-b", "folder": "/runs/study-pairs", "written": True}
    assert json.loads(out) == {"study": "pairs", "elsewhere": facts}
    code, _, err = bench.command("study", "pairs", "--if-done", "fail")
    assert (code, err.count("\n")) == (2, 1)


@pytest.mark.slow
def test_two_workers_share_one_copy_and_leave_nothing_behind(bench):
    found, _ = api.study("pairs", bench.of_pairs(*SPACE), trials=5, workers=2, runs=bench.runs)
    assert found.trials == 5
    assert not (found.folder / "shared").exists()
    assert texts_extracted(bench) == 2
