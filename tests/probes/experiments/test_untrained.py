"""The raw cosine as a candidate: it is chosen where training improves on nothing, and predicts like any run."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from permafrost import api
from permafrost.probes.config.names import PROBE
from permafrost.probes.figures.metrics import by_layer
from permafrost.probes.metrics.metrics import spearman
from permafrost.probes.results.run_folder import RunError
from permafrost.probes.results.run_tables import read_tables
from tests.support.bench import Bench
from tests.support.damage import resealed
from tests.support.marks import slow_but_first

CASES = {
    "pooled": ["plan.views=mean,cls"],
    "tokens": ["plan.views=tokens", "train.seeds=0,1"],
    "another plan alone": ["plans.loud.template={text} !", "probe.inputs=loud/mean:1..2"],
}


@pytest.fixture(scope="module", params=slow_but_first(CASES))
def chosen_raw(request, tmp_path_factory, tiny):
    """A run that chooses the raw cosine, since training is made to look useless."""
    bench = Bench(tmp_path_factory.mktemp("raw"), tiny("bert"))
    (bench.folder / "own.toml").write_text('[probe]\nencoder = "mlp"\ncode = 0.5\n')
    settings = bench.of_pairs("corpus.target=score", "corpus.score_range=-1,1", "train.epochs=1", *CASES[request.param])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permafrost.probes.variants.combine_seeds._selection_value", lambda *given: -1.0)
        return bench, api.run(str(bench.folder / "own.toml"), settings, bench.runs)


def best_reference(metrics: pd.DataFrame) -> pd.Series:
    rows = metrics[(metrics["variant"] == "raw") & (metrics["split"] == "validation")]
    return rows.loc[rows.loc[rows["metric"] == "spearman", "value"].idxmax()]


def test_the_best_layer_on_validation_is_chosen_and_the_record_names_it(chosen_raw):
    _, done = chosen_raw
    best = best_reference(pd.DataFrame(done.metrics))
    assert done.selected == f"raw ({best['view']}, layer {best['layer']:.0f})"
    record = json.loads((done.path / "record.json").read_text("utf-8"))
    assert record["selected"] == done.selected
    assert record["parameters"][done.selected] == 0
    assert set(record["stores"]) == {"probe"}
    own = [row for row in done.metrics if row["variant"] == done.selected and row["split"]]
    assert {row["split"] for row in own} == {"validation", "test"}
    values = {(row["split"], row["metric"]): row["value"] for row in own}
    for row in done.metrics:
        same = row["variant"] == "raw" and (row["view"], row["layer"]) == (best["view"], best["layer"])
        if same and (row["split"], row["metric"]) in values:
            assert values[row["split"], row["metric"]] == row["value"]


def test_a_loaded_run_answers_with_the_cosine_in_the_unit_of_the_corpus(chosen_raw):
    _, done = chosen_raw
    table = pd.read_csv(done.path / "predictions.csv")
    (value,) = (
        row["value"] for row in done.metrics
        if (row["variant"], row["split"], row["metric"]) == (done.selected, "test", "spearman")
    )  # fmt: skip
    assert spearman(table["raw"].to_numpy(), table["target"].to_numpy()) == pytest.approx(value)
    assert table["seed"].isna().all()
    predictor = api.load(done.path)
    assert sum(parameter.numel() for parameter in predictor.tasks[PROBE].probe.mixer.parameters()) == 0
    rows = list(zip(table["sentence1"], table["sentence2"], strict=True))
    said = [answer["score"] for answer in predictor.predict(rows)]
    np.testing.assert_allclose(said, table["score"], atol=2e-3)  # latents in float16, other texts in the batch
    assert predictor.predict([("the dog", "the dog")])[0]["score"] == 1.0


@pytest.mark.parametrize("columns", [[["loud", "mean", 1]], [["none", "mean", 1]], [["", "cls:", 1]], []])
def test_a_description_of_another_column_is_refused(columns, chosen_raw, tmp_path):
    folder = shutil.copytree(chosen_raw[1].path, tmp_path / "run")
    with safe_open(folder / "probe.safetensors", "pt") as file:
        about = json.loads(file.metadata()["about"]) | {"columns": columns}
    if api.load(folder).tasks[PROBE].columns == tuple(map(tuple, columns)):
        about["untrained"] = False  # then the trained probe, which has other weights
    save_file(load_file(folder / "probe.safetensors"), folder / "probe.safetensors", {"about": json.dumps(about)})
    resealed(folder)
    with pytest.raises(RunError, match=re.escape(str(folder))):
        api.load(folder)


def test_the_page_shows_the_chosen_layer_as_a_line_across_and_not_as_a_curve(chosen_raw):
    _, done = chosen_raw
    assert done.selected in (done.path / "report.html").read_text("utf-8")
    figure = by_layer(read_tables(done.path))
    labels = {line.get_label() for axes in figure.axes for line in axes.get_lines()}
    assert f"{done.selected} (chosen)" in labels
    assert not any(label.startswith(f"{done.selected} cosine") for label in labels)


def test_a_trained_variant_that_is_better_is_chosen(tmp_path, tiny, quick, monkeypatch):
    from permafrost.probes.variants import combine_seeds

    real = combine_seeds.untrained_cosines
    monkeypatch.setattr(combine_seeds, "untrained_cosines", lambda inputs, rows: -real(inputs, rows))
    bench = Bench(tmp_path, tiny("bert"))
    done = api.run("pairs", bench.of_pairs(), bench.runs)
    assert done.selected in ("weights", "linear")
    assert {row["variant"] for row in done.metrics} == {"raw", "weights", "linear"}


def test_classes_have_no_raw_candidate(tmp_path, tiny, quick):
    bench = Bench(tmp_path, tiny("bert"))
    assert api.run("classify", bench.of_topics(sides=2), bench.runs).selected in ("linear", "mlp", "probe")


def test_the_command_line_says_what_was_chosen(tmp_path, tiny, quick):
    bench = Bench(tmp_path, tiny("bert"))
    code, out, err = bench.command("run", "pairs", "--only", "weights", settings=bench.of_pairs("train.epochs=1"))
    assert code == 0, err
    assert "chosen on validation: raw (mean, layer " in out
