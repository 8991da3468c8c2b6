"""Each figure is drawn from the tables it needs, and from nothing where they are not there."""

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from example_run import SELECTED, every_table, record
from matplotlib import rc_context

from probes.ablation_figures import layers_of, rows_of, selectivities
from probes.drawing import SETTINGS, caption
from probes.report import CAPTIONS, FIGURES
from probes.study_figures import history
from probes.tables import SCHEMAS, Tables

NEEDS = {
    "by_layer": "metrics",
    "ladder": "metrics",
    "diagram": "record",
    "predicted_against_gold": "predictions",
    "confusion": "predictions",
    "training": "training",
    "autoencoder": "autoencoder",
    "ablation": "ablation",
    "choices": "ablation",
    "selectivity": "ablation",
    "history": "trials",
    "intermediate": "intermediate",
    "importances": "importances",
    "unexplained": "trials",
}


@pytest.fixture(scope="module")
def runs():
    """Runs with every table, of scores and of classes (True)."""
    return {classes: full(classes) for classes in (False, True)}


def full(classes: bool) -> Tables:
    tables = {name: frame.reset_index(drop=True) for name, frame in every_table(classes).items()}
    missing = [name for name, table in tables.items() for column in SCHEMAS[name].text if column not in table]
    assert not missing
    numbers = {n: t.astype(dict.fromkeys(SCHEMAS[n].numbers, "float")) for n, t in tables.items()}
    return Tables("made-up", record(classes), "", **numbers)


def without(run: Tables, name: str) -> Tables:
    if name == "record":
        return replace(run, record={"selected": SELECTED, "metric": "pearson"})
    return replace(run, **{name: getattr(run, name).iloc[:0]})


def test_every_figure_says_what_it_shows_and_what_it_needs():
    assert set(NEEDS) == set(FIGURES) == set(CAPTIONS)


@pytest.mark.parametrize("name", FIGURES)  # a new figure without a line in NEEDS fails here
def test_a_figure_has_marks_and_is_absent_without_its_table(name, runs):
    run = runs[name == "confusion"]
    with rc_context(SETTINGS):
        figure = FIGURES[name](run)
        assert figure is not None
        drawn = [one for axes in figure.axes for one in (*axes.lines, *axes.collections, *axes.patches)]
        assert drawn
        assert FIGURES[name](without(run, NEEDS[name])) is None


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_takes_one_row_and_figures_that_do_not_exist(name, runs):
    run = runs[name == "confusion"]
    with rc_context(SETTINGS):
        for broken in (slice(0, 1), slice(None)):
            table = {} if NEEDS[name] == "record" else {NEEDS[name]: getattr(run, NEEDS[name]).iloc[broken].copy()}
            for column in ("value", "low", "high") if broken == slice(None) else ():
                for frame in table.values():
                    if column in frame:
                        frame[column] = np.nan
            figure = FIGURES[name](replace(run, **table))
            if figure:
                figure.savefig(io.BytesIO(), format="svg")


def test_the_marks_by_layer_are_the_values_of_the_table(runs):
    figure = FIGURES["by_layer"](runs[False])
    table = runs[False].metrics
    rows = table[(table["variant"] == "raw") & (table["view"] == "mean") & (table["split"] == "test")]
    assert [axes.get_title("left") or axes.get_title() for axes in figure.axes] == ["train", "validation", "test"]
    line = figure.axes[-1].lines[0]
    assert line.get_ydata().tolist() == rows.loc[rows["metric"] == "pearson", "value"].tolist()


def test_the_bars_of_the_ladder_keep_the_order_of_the_recipe_from_the_top(runs):
    axes = FIGURES["ladder"](runs[False]).axes[0]
    shown = [label.get_text() for label in axes.get_yticklabels()][::-1]
    variants = list(dict.fromkeys(runs[False].metrics["variant"]))
    found = [max((name for name in variants if label.startswith(name)), key=len) for label in shown]
    assert list(dict.fromkeys(found)) == variants
    assert [label for label in shown if "(chosen)" in label] == [f"{SELECTED} (chosen)"]


def test_a_confusion_counts_each_row_once(runs):
    counts = [int(text.get_text()) for text in FIGURES["confusion"](runs[True]).axes[0].texts]
    assert sum(counts) == 120


def test_selectivity_is_the_metric_less_the_metric_on_random_targets(runs):
    table = selectivities(runs[False])
    assert table["selectivity"].tolist() == pytest.approx([0.6] * len(table))
    assert set(table["kind"]) == {"single", "prefix", "suffix", "greedy", "without", "view", "backbone"}


def test_layers_left_out_are_found(runs):
    rows = rows_of(runs[False])
    assert rows.loc[(rows["kind"] == "without") & (rows["control"] == ""), "place"].tolist() == list(range(7))
    assert layers_of("0-2,5 and x") == [0, 1, 2, 5]


def test_a_name_becomes_one_short_line():
    assert caption("_a\x00b\nc") == "a b c"
    assert caption("") == "(no name)"
    assert len(caption("x" * 99)) == 36
    assert pd.notna(caption(None))


def test_the_best_so_far_never_falls(runs):
    best = list(history(runs[False]).axes[0].lines[0].get_ydata())
    assert best == sorted(best)
    assert best[0] < best[-1]
