"""What a run leaves behind: the files, the resolved recipe, the record, and two tables."""

import json

import numpy as np
import pandas as pd
import pytest

from permafrost import api
from permafrost.data.errors import MachineError
from permafrost.data.settings.toml import read_toml
from permafrost.probes.config.load import load_recipe
from permafrost.probes.runs import write
from permafrost.user_data import DataArguments, load_with_data
from tests.support.bench import COLUMNS, FILES, Bench, pairs

LAYERS = 4


@pytest.fixture
def bench(tmp_path, tiny):
    return Bench(tmp_path, tiny("bert"))


def test_the_folder_of_a_run_holds_what_it_should_and_nothing_else_is_left(finished):
    bench, done = finished
    assert {path.name for path in done.path.iterdir()} == FILES
    assert not [path.name for path in bench.runs.iterdir() if path.name.startswith(".")]
    drawn = {path.name for path in (done.path / "figures").iterdir()}
    assert {"by_layer.png", "by_layer.svg", "predicted_against_gold.png", "training.png"} <= drawn
    assert done.selected in (done.path / "report.html").read_text("utf-8")
    assert not list(bench.folder.rglob("*.tmp"))


def test_the_resolved_recipe_of_a_run_runs_again(finished):
    bench, done = finished
    name, recipe = load_recipe(str(done.path / "recipe.toml"))
    given = load_with_data(load_recipe, "pairs", bench.of_pairs("train.seeds=0,1"), DataArguments())
    assert (name, recipe) == ("recipe", given[1])
    assert read_toml((done.path / "recipe.toml").read_text("utf-8"), name)["train"]["seeds"] == [0, 1]


def test_the_record_says_what_ran_on_what(finished):
    _, done = finished
    record = json.loads((done.path / "record.json").read_text("utf-8"))
    assert {"versions", "commit", "host", "machine", "stores", "seconds", "parameters", "texts_run"} <= set(record)
    assert record["texts_run"] == record["texts_distinct"] == done.texts_distinct
    assert record["texts"] == done.texts == 140
    assert record["parameters"]["weights"] == LAYERS  # one weight a layer and nothing else
    (store,) = record["stores"]["linear"].values()
    assert store["columns"] == {"mean": list(range(LAYERS))}
    assert store["identity"]["compute_dtype"] == "float32"
    assert record["probes"]["linear"]["inputs"] == [
        {"plan": "", "view": "mean", "layers": list(range(LAYERS)), "width": 32}
    ]
    assert record["selected"] == done.selected


def test_the_metrics_are_one_long_table(finished):
    bench, done = finished
    table = pd.read_csv(done.path / "metrics.csv")
    assert list(table) == COLUMNS
    assert set(table["backbone"]) == {str(bench.backbone)}
    assert set(table.loc[table["split"].isna(), "metric"]) == {
        "trained_parameters", "parameters", "saved_parameters",
    }  # fmt: skip
    assert table[["against", "p"]].isna().all(axis=None)
    table = table[table["split"].notna()]
    assert set(table["corpus"]) == {"pairs.csv"}
    raw, trained = table[table["variant"] == "raw"], table[table["variant"] != "raw"]
    assert sorted(set(raw["layer"])) == list(range(LAYERS))
    assert trained["layer"].isna().all()  # their figures belong to all layers
    assert set(trained.loc[trained["seed"].notna(), "metric"]) == {"pearson", "spearman", "pearson_p", "spearman_p"}
    assert set(trained.loc[trained["seed"].isna(), "metric"]) == {"pearson", "spearman", "mae"}
    measured = table[~table["metric"].str.endswith("_p")]
    assert (measured["low"] <= measured["value"]).all()
    assert (measured["value"] <= measured["high"]).all()
    assert dict(zip(table["split"], table["n"], strict=True)) == {"train": 40, "validation": 15, "test": 15}
    assert set(raw["split"]) == {"train", "validation", "test"}
    assert set(trained["split"]) == {"validation", "test"}


def test_the_row_without_a_seed_is_the_mean_of_those_with_one(finished):
    table = pd.read_csv(finished[1].path / "metrics.csv")
    rows = table[(table["variant"] == "linear") & (table["split"] == "test") & (table["metric"] == "pearson")]
    assert rows.loc[rows["seed"].isna(), "value"].item() == pytest.approx(rows["value"][rows["seed"].notna()].mean())


def test_the_predictions_are_those_of_the_selected_variant_on_test(finished):
    _, done = finished
    table = pd.read_csv(done.path / "predictions.csv")
    assert list(table) == ["sentence1", "sentence2", "target", "score", "raw", "seed"]
    gold = [row for row in pairs() if row[3] == "test"]
    first = table[table["seed"] == 0]
    assert first["sentence1"].tolist() == [row[0] for row in gold]
    assert first["target"].tolist() == pytest.approx([row[2] for row in gold])
    assert table["score"].between(0, 1).all()
    row = next(
        r for r in done.metrics
        if (r["variant"], r["split"], r["metric"], r["seed"]) == (done.selected, "test", "pearson", 0)
    )  # fmt: skip
    assert row["value"] == pytest.approx(np.corrcoef(first["raw"], first["target"])[0, 1], rel=1e-5)  # csv of float32


def test_the_training_is_told_epoch_by_epoch_of_every_variant_and_seed(finished):
    _, done = finished
    table = pd.read_csv(done.path / "training.csv")
    assert list(table) == ["variant", "seed", "phase", "epoch", "loss", "value"]
    assert set(table["phase"]) == {"training"}
    told = table.groupby(["variant", "seed"])["epoch"].apply(list)
    assert told.to_dict() == {(variant, seed): [1, 2, 3] for variant in ("weights", "linear") for seed in (0, 1)}
    for (variant, seed), rows in table.groupby(["variant", "seed"]):
        best = next(
            row["value"] for row in done.metrics
            if (row["variant"], row["seed"], row["split"], row["metric"]) == (variant, seed, "validation", "spearman")
        )  # fmt: skip
        assert rows["value"].max() == pytest.approx(best)  # of the epoch whose weights were kept


def test_the_latents_are_shown_with_their_texts(finished):
    _, done = finished
    table = pd.read_csv(done.path / "latents.csv")
    assert set(table["layer"]) == {0, 2, 3}  # first, middle, last
    assert set(table["view"]) == {"mean"}
    known = {text for row in pairs() if row[3] == "validation" for text in row[:2]}
    assert set(table["text"]) == known


def test_the_pretraining_is_told_too(bench, quick):
    settings = bench.of_pairs(*bench.of_other_texts(), "train.seeds=0,1")
    done = api.run("pairs", settings, bench.runs, only=["linear"])
    table = pd.read_csv(done.path / "training.csv")
    assert table.groupby("phase")["epoch"].max().to_dict() == {"training": 3, "pretraining": 2}
    layers = pd.read_csv(done.path / "autoencoder.csv")
    assert list(layers) == ["variant", "seed", "plan", "view", "layer", "norm", "loss", "unexplained"]
    assert layers["layer"].tolist() == [*range(LAYERS)] * 2
    assert layers["seed"].tolist() == [0] * LAYERS + [1] * LAYERS
    record = json.loads((done.path / "record.json").read_text("utf-8"))
    assert record["probes"]["linear"]["pretraining"] == "autoencoder"


def test_a_full_disk_names_the_folder_and_leaves_nothing_there(tmp_path, monkeypatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write, "write_tables", full)
    runs = tmp_path / "full"
    with pytest.raises(
        MachineError, match=rf"^{runs}: the run folder could not be written \(No space left on device\)"
    ):
        write.RunWriter(runs, "name", None, "run").write({}, {})
    assert not list(runs.iterdir())
