"""The report: drawn from the tables of a folder alone, whatever is in them; and the comparison of several."""

import functools
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from permafrost.data.digests import DamageError
from permafrost.data.errors import InputError
from permafrost.probes.reports.compare import COLUMNS, comparison, write_comparison
from permafrost.probes.reports.figures import FIGURES
from permafrost.probes.reports.report import PAGES, result_grids, write_report
from permafrost.probes.results.run_folder import ReportError
from tests.support.damage import resealed
from tests.support.example_run import (
    EVIL,
    SELECTED,
    example,
    latents,
    metrics,
    predictions,
    record,
    write_evaluation,
    write_tables,
)
from tests.support.marks import slow_but_first
from tests.support.page_reader import Page

TOGETHER_ONLY = {"by_epoch", "by_epoch_second", "weights", "conflicts", "confusions"}
OF_RUNS = {
    "variants", "by_layer", "diagram", "predicted_against_gold", "confusion", "by_class", "by_label", "by_entity_type",
    "by_pattern", "by_question_word", "training", "autoencoder",
}  # fmt: skip
DRAWN = {
    ("run", False): OF_RUNS - {"confusion"},
    ("run", True): OF_RUNS - {"predicted_against_gold", "by_layer"} | {"reliability"},
    ("ablation", False): {"layer_curves", "choices", "selectivity"},
    ("study", False): {"history", "intermediate", "importances", "unexplained"},
    ("pretraining", False): {"loss"},
}
"""Experiment, and whether its targets are classes -> the figures of its page."""


@pytest.fixture(scope="module")
def report_of(tmp_path_factory):
    """Experiment, and whether its targets are classes -> the folder of an example with every table, and its page."""

    @functools.cache
    def drawn(experiment: str, classes: bool) -> tuple[Path, Page]:
        folder = example(tmp_path_factory.mktemp("runs") / "made-up-1", experiment, classes)
        return folder, Page(write_report(folder).read_text("utf-8"))

    return drawn


@pytest.fixture(params=[False, True], ids=["scores", "classes"])
def reported(request, report_of):
    """A run with every table, its report, and whether its targets are classes."""
    return *report_of("run", request.param), request.param


def test_every_figure_belongs_to_a_page():
    assert set(FIGURES) == {"layer_map", "transfer"}.union(TOGETHER_ONLY, *DRAWN.values())


@pytest.mark.parametrize(("experiment", "classes"), DRAWN)
def test_every_figure_stands_in_the_page_and_beside_it(experiment, classes, report_of):
    folder, page = report_of(experiment, classes)
    expected, ids = DRAWN[experiment, classes], {name for name in page.ids if name.startswith("figure-")}
    spaces = {"pca", "tsne"} if experiment == "run" else set()
    assert ids == {f"figure-{name}" for name in expected | spaces}
    beside = {path.name for path in (folder / "figures").iterdir()}
    assert beside == {f"{name}.{kind}" for name in expected for kind in ("png", "svg")}
    assert page.tags.count("svg") == len(expected)
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)


def test_the_page_of_an_evaluation_has_the_transfer_matrix_and_each_pair(tmp_path, pages_alone):
    folder = write_evaluation(tmp_path / "evaluation-1")
    page = Page(write_report(folder).read_text("utf-8"))
    drawn = {name for name in page.ids if name.startswith("figure-")}
    of_pair = {f"figure-1-pair-{name}" for name in ("by_class", "confusion", "reliability")}
    assert drawn == {"figure-transfer", *of_pair}
    matrix, comparisons = result_grids(folder)
    assert [line[0] for line in matrix.rows] == ["sst-1", "<b>nli</b>-2"]
    assert matrix.rows[1][1] == ("0.7000", "[0.500, 0.900]")
    assert [line[:2] for line in comparisons.rows] == [["<b>nli</b>-2 against sst-1", "a.csv"]]
    assert "hacked=1</script>" not in write_report(folder).read_text("utf-8").split("window.hacked")[0]
    assert not re.search(r"\b(nan|NaN|None|inf)\b", page.text)


def test_names_on_the_page_are_its_own(reported):
    ids = reported[1].ids
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in reported[1].links if link.startswith("#")} <= set(ids)


def test_nothing_on_the_page_points_outside_or_comes_from_a_text(reported):
    page = reported[1]
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.count("script") == 3  # latents, plotly, ours
    assert not {"img", "b", "i", "a"} & set(page.tags) - {"a", "b"}
    assert "49" not in re.findall(r"\{\{.*?\}\}|(?<=</script>)49", page.text)
    assert EVIL in page.text


def test_the_page_allows_the_scripts_it_came_with_and_no_other(reported):
    text = (reported[0] / "report.html").read_text("utf-8")
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1])
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    assert re.fullmatch(r"'sha256-[^']*' 'sha256-[^']*'", parts["script-src"])


def test_no_figure_is_said_to_be_nan(reported):
    assert not re.search(r"\b(nan|NaN|None|inf)\b", reported[1].text)


def test_the_headline_stands_as_it_was_measured(reported):
    assert "0.8300 [0.810, 0.850]" in reported[1].text
    assert "516,110" in reported[1].text
    assert "2.27 %" in reported[1].text
    assert SELECTED in reported[1].text


def test_a_report_is_drawn_again_the_same(tmp_path):
    tables = {"metrics": metrics(), "predictions": predictions(), "latents": latents()}
    folder = write_tables(tmp_path / "run", tables, record())
    write_report(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write_report(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_run_of_metrics_alone_has_a_report(tmp_path, pages_alone):
    folder = write_tables(tmp_path / "few", {"metrics": metrics()}, {})
    page = Page(write_report(folder).read_text("utf-8"))
    assert [name for name in page.ids if name.startswith("figure-")] == ["figure-variants", "figure-by_layer"]
    assert "script" not in page.tags


def test_a_figure_whose_table_is_gone_is_gone(tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": metrics(), "predictions": predictions()}, record())
    write_report(folder)
    (folder / "predictions.csv").unlink()
    write_report(resealed(folder))
    assert not (folder / "figures" / "predicted_against_gold.png").exists()


def test_constant_predictions_are_said_in_words(tmp_path, pages_alone):
    table = metrics()
    table = table[~((table["variant"] == SELECTED) & table["metric"].isin(["pearson", "spearman"]))]
    said = predictions().assign(score=2.5, raw=0.5)
    folder = write_tables(tmp_path / "flat", {"metrics": table, "predictions": said}, record())
    text = Page(write_report(folder).read_text("utf-8")).text
    assert "all predictions are the same" in text
    assert "undefined" in text


ODD = {
    "a list": {"probes": []},
    "no shapes": {"probes": {SELECTED: {"inputs": 3, "codes": "x", "parameters": "y"}}},
    "no numbers": {"seconds": {"all": float("nan")}, "corpus": [1], "selected": 7, "metric": "<b>"},
    "huge numbers": {"bytes": 10**400, "probes": {SELECTED: {"codes": [10**400], "parameters": 1e308}}},
    "nothing": {"probes": {SELECTED: {"inputs": [{}], "encoder": None, "mixer": None, "codes": [None]}}},
}


@pytest.mark.parametrize("kind", slow_but_first(ODD))
def test_a_record_may_say_anything(tmp_path, kind, pages_alone):
    folder = write_tables(tmp_path / "odd", {"metrics": metrics()}, record() | ODD[kind])
    Page(write_report(folder).read_text("utf-8"))


def test_a_run_that_is_being_written_goes_by_its_name(tmp_path):
    folder = write_tables(tmp_path / ".x1.tmp", {"metrics": metrics()}, {"name": "pairs"})
    assert "<h1>pairs</h1>" in write_report(folder).read_text("utf-8")


@pytest.mark.parametrize("value", slow_but_first([1e308, -1e308, float("inf"), 1e-320]))
def test_a_number_that_no_axis_holds_is_missing(tmp_path, value, pages_alone):
    tables = {"metrics": metrics(), "predictions": predictions(), "latents": latents()}
    tables["metrics"].loc[::7, ["value", "low"]] = value
    tables["predictions"].iloc[3, tables["predictions"].columns.get_loc("score")] = value
    tables["latents"].iloc[3, tables["latents"].columns.get_loc("x")] = value
    text = Page(write_report(write_tables(tmp_path / "run", tables, record())).read_text("utf-8")).text
    assert not re.search(r"\b(nan|inf)\b", text)


def test_names_in_any_script_and_with_formulas_are_drawn(tmp_path, pages_alone):
    table = metrics().replace({SELECTED: "$\\frac{日本\x07</svg>", "mix": "_hidden"})
    folder = write_tables(tmp_path / "odd", {"metrics": table}, {})
    assert "</svg> " not in Page(write_report(folder).read_text("utf-8")).tags


BROKEN = {
    "no record": ("record.json", None, "no record.json"),
    "no tables": ("metrics.csv", None, "is no finished run: it has no metrics.csv"),
    "a record that is a list": ("record.json", b"[]", "of another version of permafrost (its record.json has no"),
    "a record without digests": ("record.json", b"{}", "of another version of permafrost (its record.json has no"),
    "bytes": ("metrics.csv", b"\xff\xfe\x00", "metrics.csv is no table"),
    "nothing": ("metrics.csv", b"", "metrics.csv is no table"),
    "another table": ("metrics.csv", b"a,b\n1,2\n", "no column 'variant'"),
    "a long row": ("predictions.csv", b"target,seed\n1,2,3\n", "predictions.csv is no table"),
    "a word": (
        "training.csv",
        b"variant,phase,seed,epoch,loss,value\na,training,0,one,1,1\n",
        "expected a number, got 'one'",
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_folder_that_is_no_finished_run_is_one_clear_line(tmp_path, fault):
    name, content, message = BROKEN[fault]
    folder = write_tables(tmp_path / "run", {"metrics": metrics()}, record())
    (folder / name).unlink(missing_ok=True)
    if content is not None:
        (folder / name).write_bytes(content)
    if name != "record.json":
        resealed(folder)
    with pytest.raises(ReportError, match=re.escape(message)) as caught:
        write_report(folder)
    assert isinstance(caught.value, InputError)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_a_report_writes_into_its_own_folder_only(tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": metrics()}, record())
    (tmp_path / "elsewhere").mkdir()
    (folder / "figures").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ReportError, match="is a link"):
        write_report(folder)
    assert not list((tmp_path / "elsewhere").iterdir())


@pytest.mark.parametrize("experiment", ["another", None, ["run"]])
def test_a_record_of_no_known_experiment_is_refused_with_those_that_are_known(experiment, tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": metrics()}, record() | {"experiment": experiment})
    with pytest.raises(ReportError, match=f"known: {', '.join(PAGES)}"):
        write_report(folder)


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Runs: one, a better one in another order of rows, one on other rows, one of classes."""
    folder = tmp_path_factory.mktemp("several")
    base, better = predictions(), predictions()
    better["raw"] = (better["raw"] + better["target"] / 5) / 2
    other = predictions(rows=90)
    write_tables(folder / "one-1", {"metrics": metrics(), "predictions": base}, record())
    write_tables(
        folder / "two-1", {"metrics": metrics(), "predictions": better.sample(frac=1, random_state=0)}, record()
    )
    write_tables(folder / "three-1", {"metrics": metrics(), "predictions": other}, record())
    write_tables(folder / "four-1", {"metrics": metrics(True), "predictions": predictions(True)}, record(True))
    return folder


def test_runs_are_compared_row_by_row(several):
    found = comparison([several / f"{name}-1" for name in ("one", "two", "three", "four")])
    assert list(found) == COLUMNS
    assert found["run"].tolist() == ["one-1", "two-1", "three-1", "four-1"]
    base, better = (pd.read_csv(several / f"{name}-1" / "predictions.csv") for name in ("one", "two"))
    r = [np.mean([np.corrcoef(g["raw"], g["target"])[0, 1] for _, g in t.groupby("seed")]) for t in (base, better)]
    assert found["difference"][1] == pytest.approx(r[1] - r[0])
    assert found["p"][1] < 0.01
    assert found["difference"][2:].isna().all()
    assert found["note"].tolist() == ["", "", "not the same rows: no paired test", "another metric: no paired test"]


def test_runs_of_classes_are_compared_by_what_they_got_right(several, tmp_path):
    shutil.copytree(several / "four-1", tmp_path / "four-1")
    found = comparison([several / "four-1", tmp_path / "four-1"])
    assert (found["difference"][1], found["p"][1]) == (0, 1)
    assert found["run"].tolist() == [str(several / "four-1"), str(tmp_path / "four-1")]  # one name, two places


def test_a_comparison_is_one_page(several, tmp_path):
    folders = [several / f"{name}-1" for name in ("one", "two", "three")]
    page = Page(write_comparison(comparison(folders), tmp_path / "compared.html").read_text("utf-8"))
    assert "figure-runs" in page.ids
    assert "not the same rows: no paired test" in page.text
    assert "nan" not in page.text
    assert "script" not in page.tags


def test_nothing_to_compare_is_said():
    with pytest.raises(ReportError, match="nothing to compare"):
        comparison([])


def test_the_record_is_read_as_json_only(tmp_path):
    folder = write_tables(tmp_path / "run", {"metrics": metrics()}, {})
    for content in (json.dumps({"a": 1})[:-1] + ', "b": ' + "[" * 100_000, "{"):
        (folder / "record.json").write_text(content, "utf-8")
        with pytest.raises(DamageError, match=r"record\.json cannot be read"):
            write_report(folder)
